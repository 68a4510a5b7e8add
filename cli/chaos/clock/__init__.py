"""A folder for PYTHONPATH: what is in it runs before a worker of a chaos run does."""
