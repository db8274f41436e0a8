"""Bring a ledger's schema up to the revision of this program, by Alembic; the revisions are in `migrations`.

A database without a revision is new, or of the time before there were revisions: the first revision adopts it.
"""

from pathlib import Path
from threading import Lock

from sqlalchemy import Connection, inspect, text

from blocks.common.errors import Rejected

HEAD = "0002"
"""The revision of this program. A constant, because to ask Alembic for it takes 0.3 s of each process."""
VERSION_TABLE = "ratchet_schema"
"""Not Alembic's own name: MLflow or Prefect may keep theirs in the same database."""
_FOLDER = Path(__file__).with_name("migrations")
_ONE_UPGRADE = Lock()  # Alembic hands connection and operations to the revisions in globals


def is_current(connection: Connection) -> bool:
    """Whether the schema has the revision of this program."""
    return _revision(connection) == HEAD


def upgrade(connection: Connection, place: str) -> None:
    """Bring the schema up to this program's revision, in the transaction of the caller; alone, among processes.

    Args:
        connection: in a transaction that writes, and which nobody else does at the same time.
        place: the database, for the message.

    Raises:
        Rejected: its revision is not one that this program knows: a newer program has upgraded it.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    known = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    found = _revision(connection)
    if found and found not in known:
        raise Rejected(
            f"ledger at {place}: its schema has revision {found}, and this program knows {HEAD} and those before. A "
            "newer release of Ratchet has upgraded it: run that release, or restore the backup from before the upgrade."
        )
    config.attributes.update(connection=connection, version_table=VERSION_TABLE)
    with _ONE_UPGRADE:
        command.upgrade(config, "head")


def _revision(connection: Connection) -> str:
    if not inspect(connection).has_table(VERSION_TABLE):
        return ""
    return str(connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar() or "")  # noqa: S608
