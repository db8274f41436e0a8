"""What git hosts deliver, and what became of it: the port, its adapter for SQL databases, and its fake."""
