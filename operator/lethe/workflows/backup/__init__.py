"""Snapshots, from the listing that shows them until no copy of an erased person is left."""
