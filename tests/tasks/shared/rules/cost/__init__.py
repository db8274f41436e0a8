"""Tests of what paid work may cost."""
