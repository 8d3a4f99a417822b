"""The API server, through `kubernetes.aio`."""
