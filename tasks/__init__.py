"""The stages from data to production, one folder each: `tasks.py` holds the Prefect tasks, `rules` the decisions."""
