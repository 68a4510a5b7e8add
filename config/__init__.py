"""Facts from outside: settings, prices, the schema registry and the ledger."""
