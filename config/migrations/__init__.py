"""Alembic's environment and revisions for the database of the ledger and the registry."""
