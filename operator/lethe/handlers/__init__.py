"""The thin Kopf shell: doorbells, one module per kind. Nothing is decided or written here."""
