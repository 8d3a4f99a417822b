"""The whole story against a real API server: the operator as a process, as its users run it."""
