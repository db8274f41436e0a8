"""Evaluation: predict with challenger and champion on the holdout, and reach a verdict."""
