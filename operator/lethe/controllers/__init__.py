"""One controller for each kind, on one small runtime: a queue of keys, and `reconcile(key)`.

A controller calls workflows in worker threads and the API server from its event loop; it decides nothing
that a workflow or the domain could decide.
"""
