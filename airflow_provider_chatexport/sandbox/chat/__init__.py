"""The chat of the sandbox: a corpus or generated messages, their authors, and what control calls change."""
