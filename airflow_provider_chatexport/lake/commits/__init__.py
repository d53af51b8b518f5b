"""The log of commits, and what follows from it: coverage, snapshot, visibility."""
