"""The thin Kopf shell: a table of doorbells, and how Kopf is set. Nothing is decided or written here."""
