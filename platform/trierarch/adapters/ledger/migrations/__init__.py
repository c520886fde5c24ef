"""How the ledger's tables came to be; run by ``Database`` when it opens."""
