"""What builds and runs real servers, and makes generated files: used by the demo, the benches and the
tests."""
