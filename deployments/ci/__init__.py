"""Continuous integration for teams: pipelines to copy, and the commands that they all call."""
