"""What rewrites, cleans or checks a lake."""
