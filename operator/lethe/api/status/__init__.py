"""From where things stand to the status that the API server keeps, one module for each kind."""
