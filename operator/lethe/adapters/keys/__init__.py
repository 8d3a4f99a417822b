"""Where the three keys of a ledger come from."""
