"""Rules of batch inference: where rows are predicted, and the payload of requests and responses."""
