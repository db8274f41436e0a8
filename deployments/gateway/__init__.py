"""The only door of the platform to the outside: what git hosts deliver is verified, kept, and turned into flow runs."""
