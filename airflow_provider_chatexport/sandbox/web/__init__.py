"""The HTTP side of the sandbox: endpoints, control, faults, limits."""
