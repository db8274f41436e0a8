"""Rules of training: listing and comparing training runs."""
