"""Costs and budgets: what paid work may cost at worst, what it did cost, and who may spend how much."""
