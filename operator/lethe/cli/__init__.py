"""The commands `lethe` and `kubectl lethe`."""
