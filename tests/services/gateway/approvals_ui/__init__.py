"""The approvals desk: who gets in, what is shown, what is recorded."""
