"""Rules of batch scoring: where rows are predicted."""
