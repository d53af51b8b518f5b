"""What is committed, and therefore what is true."""
