"""Operators that export and load."""
