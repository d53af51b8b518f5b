"""Tasks that export and load."""
