"""The front door: the `millstream` command."""
