"""What keeps running: one queue, one schedule, a guard for each store, and the writing of status.

The engine calls workflows in worker threads and the API server from its event loop; it decides nothing
that a workflow or the domain could decide.
"""
