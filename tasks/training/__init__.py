"""Training: train a challenger, or many trials. Each is one tracked run with one job."""
