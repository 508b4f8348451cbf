"""What makes the pages of `docs/` and the tables of the README."""
