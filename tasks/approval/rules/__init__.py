"""Rules of approvals: the evidence, who may decide, waivers, and which version the ledger says is deployed."""
