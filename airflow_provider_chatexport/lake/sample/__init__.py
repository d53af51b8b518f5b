"""A sample: an export file with every value replaced, which gives nothing away."""
