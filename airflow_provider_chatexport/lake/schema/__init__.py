"""What tables are: the registry, its SQL and its Arrow schemas."""
