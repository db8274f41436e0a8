"""What may be removed, and what must stay: mark and sweep from what is promoted, asked for or running."""
