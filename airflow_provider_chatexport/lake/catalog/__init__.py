"""What readers see: the catalog, the table folders and queries, all derived from the records."""
