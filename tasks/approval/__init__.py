"""Approvals: request a decision on the evidence of one model version, and record the decision."""
