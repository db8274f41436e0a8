"""Tests of the approvals page: who gets access, what is shown, what is recorded."""
