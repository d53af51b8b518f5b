"""Work on a whole lake: compact, vacuum, verify, forget."""
