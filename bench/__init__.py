"""Figures of how fast and how small Lethe is, on real servers; `python -m bench --help`."""
