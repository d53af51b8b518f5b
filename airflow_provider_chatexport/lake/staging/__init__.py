"""From clean files to typed rows in DuckDB."""
