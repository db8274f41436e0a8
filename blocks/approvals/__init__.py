"""What people are asked and what they decide: the port, its adapter for SQL databases, and its fake."""
