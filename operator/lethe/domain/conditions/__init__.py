"""From what is recorded and observed to conditions: pure functions, one module for each kind."""
