"""Values and decisions without files, clocks and networks: windows, requests, task states, entities."""
