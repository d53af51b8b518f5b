"""One load: convert, guard, write, commit, refresh."""
