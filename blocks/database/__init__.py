"""The database of the ledger, shared by the SQL adapters of approvals, effects, inbox and outbox."""
