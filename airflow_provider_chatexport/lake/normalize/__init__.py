"""From an export file to one clean file of JSON lines per entity, and rejects. No database."""
