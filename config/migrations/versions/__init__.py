"""One module a revision, each from the one before it; a revision that was released is never changed."""
