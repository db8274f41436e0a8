"""Train a challenger or many trials, each one tracked run around one job."""
