"""What an approval is about, who may give it, and what the ledger says of what served."""
