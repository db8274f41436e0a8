"""The approvals desk: a page and an API behind the gateway's door, where people who have signed in decide."""
