"""A restore, from the journal that does not fit the ledger until the store is safe to serve again."""
