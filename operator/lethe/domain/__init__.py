"""What Lethe knows about privacy, without any I/O: facts, decisions and lifecycles.

Nothing here reads a clock, a socket or a file; `now` is always an argument.
"""
