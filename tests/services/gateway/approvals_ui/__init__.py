"""Tests of the approvals UI: who gets access, what is shown, what is recorded."""
