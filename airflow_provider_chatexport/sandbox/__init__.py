"""The service on localhost: a real HTTP server that behaves as the service's documents say, for tests, demos and users.

``world`` holds the chat and lets it change; ``records`` and ``made`` say what was said when (a corpus, or arithmetic);
``texture`` and ``people`` turn that into complete API objects; ``render`` writes export files.
"""
