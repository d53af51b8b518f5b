"""The client of the service: requests and replies as values, two drivers, and downloads."""
