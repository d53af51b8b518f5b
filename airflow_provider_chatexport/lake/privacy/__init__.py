"""People in the data: finding, hashing and removing them."""
