"""The registry of tables, its SQL and its Arrow schemas."""
