"""The exports of the sandbox: tasks, files in every shape, and the host that serves them."""
