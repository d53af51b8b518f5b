"""What knows the service: its requests and replies, two drivers, and the way from a link to a file."""
