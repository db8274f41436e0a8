"""Prefect tasks by stage. Each loads, calls a rule of `tasks.logic`, and stores."""
