"""What Alembic runs for each upgrade: the revisions, in the transaction and on the connection of the caller."""

from alembic import context

from blocks.database.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    version_table=context.config.attributes["version_table"],
)
context.run_migrations()
