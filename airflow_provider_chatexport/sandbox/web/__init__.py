"""The HTTP side of the sandbox: the service's endpoints, limits, errors and faults, and the control calls."""
