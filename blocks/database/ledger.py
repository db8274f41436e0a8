"""The ledger's block: one block names a database, and opens the four ports over it."""

from abc import abstractmethod

from prefect.blocks.core import Block
from pydantic import Field, PrivateAttr, SecretStr

from blocks.approvals.base import Approvals
from blocks.approvals.sql import SqlApprovals
from blocks.database.engine import Database
from blocks.effects.base import Effects
from blocks.effects.sql import SqlEffects
from blocks.inbox.base import Inbox
from blocks.inbox.sql import SqlInbox
from blocks.outbox.base import Outbox
from blocks.outbox.sql import SqlOutbox


class Ledger(Block):
    """The record of an environment, to which rows are only added, as four ports over one place."""

    @abstractmethod
    def approvals(self) -> Approvals:
        """Return what people were asked and decided."""

    @abstractmethod
    def effects(self) -> Effects:
        """Return what was done in the outside world, and what was deployed."""

    @abstractmethod
    def inbox(self) -> Inbox:
        """Return what git hosts delivered."""

    @abstractmethod
    def outbox(self) -> Outbox:
        """Return the alerts."""


class SqlLedger(Ledger):
    """A ledger in a SQL database: a SQLite file for one machine, PostgreSQL for a team."""

    _block_type_name = "Ratchet ledger (SQL database)"
    _block_type_slug = "ratchet-ledger-sql"

    url: SecretStr = Field(
        description="SQLAlchemy URL: sqlite:////folder/ledger.db, or postgresql://user:password@host/database. "
        "The tables are made, or upgraded, at the first use."
    )

    _open: Database | None = PrivateAttr(default=None)

    def approvals(self) -> Approvals:
        """Return what people were asked and decided."""
        return SqlApprovals(self.database())

    def effects(self) -> Effects:
        """Return what was done in the outside world, and what was deployed."""
        return SqlEffects(self.database())

    def inbox(self) -> Inbox:
        """Return what git hosts delivered."""
        return SqlInbox(self.database())

    def outbox(self) -> Outbox:
        """Return the alerts."""
        return SqlOutbox(self.database())

    def database(self) -> Database:
        """Return the database itself, which the four ports share. Raises Rejected for a URL that can hold no ledger."""
        if self._open is None:
            self._open = Database(self.url.get_secret_value())
        return self._open
