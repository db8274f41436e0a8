"""What runs and is paid for in a cloud account: the port that `sweep` tidies by, its adapters, and its fake."""
