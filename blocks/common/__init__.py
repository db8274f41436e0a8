"""Helpers shared by the adapters of several ports: errors, jobs, trust settings, collectable artifacts, AWS calls."""
