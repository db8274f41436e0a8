"""Rules of cleanup: what garbage collection may remove, and how the lake is maintained."""
