"""What was intended, decided and released: the port, its adapters, and its fake."""
