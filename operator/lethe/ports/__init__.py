"""What the core needs from outside: protocols, the shapes that they exchange, and their errors."""
