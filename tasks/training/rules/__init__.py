"""Rules of hyperparameter search and of listing and comparing runs."""
