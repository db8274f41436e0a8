"""The ledger's schema, revision by revision, in the form that Alembic runs (`blocks.database.migration` calls it).

To change the schema: change `blocks.database.tables`, and add `versions/r0003_<what>.py` beside the last one, with
`revision`, `down_revision` and `upgrade`; then set `HEAD` in `blocks.database.migration`. A revision that was released
is never edited. It may add tables, columns with a default, and indexes; it may not rebuild a table (Alembic's batch
mode), because rows are never moved or rewritten. There is no way down: a ledger is restored from a backup.
"""
