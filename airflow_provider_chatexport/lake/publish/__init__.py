"""The lake's data files as tables of other formats, nothing copied: Delta and Iceberg."""
