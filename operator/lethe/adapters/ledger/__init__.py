"""The ledger in SQLite or PostgreSQL, chosen by one URL (`open_ledger` in `ledger.py`)."""
