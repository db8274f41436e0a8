"""Decide whether an alert of monitoring retrains the model."""
