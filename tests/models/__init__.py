"""Tests of the training programs under `models/`."""
