"""Who is in the data, and how a person leaves it."""
