"""What Alembic runs for each upgrade: the revisions, in the transaction and on the connection of the caller."""

from alembic import context

from blocks.database.migrations import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
context.run_migrations()
