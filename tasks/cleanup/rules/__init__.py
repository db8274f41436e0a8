"""What may be removed, and how the lake is kept small."""
