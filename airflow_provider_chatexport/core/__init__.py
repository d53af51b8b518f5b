"""What is true without any file, clock or network: windows, requests, task states, entities."""
