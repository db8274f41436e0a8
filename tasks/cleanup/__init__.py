"""Garbage collection of unreferenced artifacts, and maintenance of the lake."""
