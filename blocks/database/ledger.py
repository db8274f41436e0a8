"""The ledger block: a database, and the four ports on it."""

from abc import abstractmethod
from pathlib import Path

from prefect.blocks.core import Block
from pydantic import Field, PrivateAttr, SecretStr
from sqlalchemy.engine import make_url

from blocks.approvals.base import Approvals
from blocks.approvals.rows import SealedRows
from blocks.approvals.sql import SqlApprovals
from blocks.common.trust import ChainTrust
from blocks.database.engine import Database
from blocks.effects.base import Effects
from blocks.effects.sql import SqlEffects
from blocks.inbox.base import Inbox
from blocks.inbox.sql import SqlInbox
from blocks.outbox.base import Outbox
from blocks.outbox.sql import SqlOutbox


class Ledger(Block):
    """The append-only record of an environment, as four ports on one database."""

    @property
    def file(self) -> Path | None:
        """The file that holds the records; None if a server or this process does."""
        return None

    @abstractmethod
    def approvals(self, trust: ChainTrust | None = None) -> Approvals:
        """Return the approvals port. With `trust` each row is sealed when it is added and verified when it is read."""

    @abstractmethod
    def effects(self, trust: ChainTrust | None = None) -> Effects:
        """Return the effects port. With `trust` each row is sealed when it is added and verified when it is read."""

    @abstractmethod
    def inbox(self) -> Inbox:
        """Return the inbox port."""

    @abstractmethod
    def outbox(self) -> Outbox:
        """Return the outbox port."""


class SqlLedger(Ledger):
    """A ledger in a SQL database: a SQLite file for one machine, PostgreSQL for a team."""

    _block_type_name = "Ratchet ledger (SQL database)"
    _block_type_slug = "ratchet-ledger-sql"

    url: SecretStr = Field(
        description="SQLAlchemy URL: sqlite:////folder/ledger.db, or postgresql://user:password@host/database. "
        "The tables are created or upgraded on first use."
    )

    _opened_database: Database | None = PrivateAttr(default=None)

    def approvals(self, trust: ChainTrust | None = None) -> Approvals:
        """Return the approvals port; see `Ledger.approvals`."""
        return SqlApprovals(self.database(), trust)

    def effects(self, trust: ChainTrust | None = None) -> Effects:
        """Return the effects port; see `Ledger.effects`."""
        return SqlEffects(self.database(), SealedRows(self.database(), trust) if trust else None)

    def inbox(self) -> Inbox:
        """Return the inbox port."""
        return SqlInbox(self.database())

    def outbox(self) -> Outbox:
        """Return the outbox port."""
        return SqlOutbox(self.database())

    @property
    def file(self) -> Path | None:
        """The file of an SQLite ledger."""
        url = make_url(self.url.get_secret_value())
        return Path(str(url.database)) if url.get_backend_name() == "sqlite" else None

    def exists(self) -> bool:
        """Return False only for a SQLite file that does not exist yet, which the first use would create."""
        return self.file is None or self.file.exists()

    def database(self) -> Database:
        """Return the database of the four ports. Raises Rejected for a URL that cannot hold a ledger."""
        if self._opened_database is None:
            self._opened_database = Database(self.url.get_secret_value())
        return self._opened_database
