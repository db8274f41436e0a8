"""What runs as a process of its own or is applied to infrastructure."""
