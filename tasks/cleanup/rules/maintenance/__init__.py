"""How the lake is kept small and fast, and how it is seen that no read of it changed."""
