"""Which rows may enter the lake, and what becomes of the others."""
