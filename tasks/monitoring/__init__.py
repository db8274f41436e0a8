"""Compare inference requests, predictions and arriving labels with the reference data of the deployed version."""
