"""The ledger's schema, revision by revision; Alembic brings a database up to the revision of this program.

To change the schema: change `blocks.database.tables`, and add `versions/r0006_<what>.py` beside the last one, with
`revision`, `down_revision` and `upgrade`; then set `HEAD`. A released revision is never edited. It may add tables,
columns with a default, and indexes; it may not rebuild a table (Alembic's batch mode), because rows are never moved or
rewritten. There is no downgrade: restore a ledger from a backup.
"""

from pathlib import Path
from threading import Lock

from sqlalchemy import Connection, inspect, text

from blocks.common.errors import Rejected

HEAD = "0005"
"""The revision of this program. A constant, because to ask Alembic for it takes 0.3 s of each process."""
VERSION_TABLE = "ratchet_schema"
"""Not Alembic's own name: MLflow or Prefect may have theirs in the same database."""
_ONE_UPGRADE = Lock()  # Alembic hands connection and operations to the revisions in globals


def is_current(connection: Connection) -> bool:
    """Whether the schema has the revision of this program."""
    return _revision(connection) == HEAD


def upgrade(connection: Connection, place: str) -> None:
    """Bring the schema up to this program's revision, in the caller's transaction, which must be the only writer.

    Raises:
        Rejected: a newer program has upgraded it, or it is older than all revisions; the message names the database
            by `place`.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    from blocks.database.tables import METADATA

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    known = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    found = _revision(connection)
    if found and found not in known:
        raise Rejected(
            f"ledger at {place}: its schema has revision {found}, and this program knows {HEAD} and those before. A "
            "newer release of Ratchet has upgraded it: run that release, or restore the backup from before the upgrade."
        )
    if not found and set(METADATA.tables) & set(inspect(connection).get_table_names()):
        raise Rejected(
            f"ledger at {place}: its tables have no schema revision: a release before revision 0001 made them. "
            "Nothing upgrades them. Move the ledger away to begin a new one, or run the release that made it."
        )
    config.attributes["connection"] = connection
    with _ONE_UPGRADE:
        command.upgrade(config, "head")


def _revision(connection: Connection) -> str:
    if not inspect(connection).has_table(VERSION_TABLE):
        return ""
    return str(connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar() or "")  # noqa: S608
