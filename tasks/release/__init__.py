"""Deploy an approved version, verify it, and roll back."""
