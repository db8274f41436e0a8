"""Rules of the evidence pack: its items, its readable pages, and the comparison of a reproduction."""
