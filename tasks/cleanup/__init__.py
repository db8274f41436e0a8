"""Garbage collection of unreferenced runs, models and files, and maintenance of the lake."""
