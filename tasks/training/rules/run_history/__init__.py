"""Runs that trained a model: how they are listed, and by what two of them differ."""
