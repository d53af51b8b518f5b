"""The data of the sandbox: channels, people, messages, and how they change."""
