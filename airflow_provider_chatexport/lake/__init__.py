"""Tables at rest: the registry of tables, the converter, the writer, the records of loads, the catalog."""
