"""The use cases, each a straight line over ports: gather, decide, act, record."""
