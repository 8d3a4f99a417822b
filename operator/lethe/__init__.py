"""Lethe erases persons in databases, proves it, and erases them again after a restore.

Layers, each importing only what stands to its right:
cli, bootstrap → handlers, adapters → api → workflows → ports → domain.
"""

__version__ = "0.1.0"
