"""Tests of what may be removed."""
