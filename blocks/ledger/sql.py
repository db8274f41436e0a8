"""A ledger in a SQL database: a SQLite file for one machine, PostgreSQL for a team. The same statements on both.

Whoever is first is decided by a unique column: each write inserts, and then returns what is there.
"""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any, TypeVar

from pydantic import Field, PrivateAttr, SecretStr
from sqlalchemy import Connection, RowMapping, Select, Table, insert, select
from sqlalchemy.exc import IntegrityError

from blocks.errors import Rejected
from blocks.ledger.base import ApprovalRequest, Decision, Deployment, Effect, Ledger
from blocks.ledger.engine import Database
from blocks.ledger.rows import fields_of
from blocks.ledger.rules import check_same_decision, check_same_request, in_utc, no_request, nothing_intended
from blocks.ledger.sql_inbox import SqlInbox
from blocks.ledger.sql_outbox import SqlOutbox
from blocks.ledger.tables import DECISIONS, DEPLOYMENTS, EFFECTS, REQUESTS

Record = TypeVar("Record")


class SqlLedger(SqlOutbox, SqlInbox, Ledger):
    """A record in a SQL database that any number of processes add to at once."""

    _block_type_name = "Ratchet ledger (SQL database)"
    _block_type_slug = "ratchet-ledger-sql"

    url: SecretStr = Field(
        description="SQLAlchemy URL: sqlite:////folder/ledger.db, or postgresql://user:password@host/database. "
        "The tables are made at the first use."
    )

    _open: Database | None = PrivateAttr(default=None)

    def intend(self, key: str, detail: str, at: datetime) -> Effect:
        """Write down an effect before it is done, or return the one that is there under the key."""
        self._add(EFFECTS, {"key": key, "state": "intent", "text": detail, "at": in_utc(at)})
        return _recorded(self.effect(key), f"effect {key!r}")

    def finish(self, key: str, outcome: str, at: datetime) -> Effect:
        """Write down that the effect is done; the first outcome stays."""
        if self.effect(key) is None:
            raise nothing_intended(key)
        self._add(EFFECTS, {"key": key, "state": "done", "text": outcome, "at": in_utc(at)})
        return _recorded(self.effect(key), f"effect {key!r}")

    def effect(self, key: str) -> Effect | None:
        """Return the effect under the key, or None."""
        rows = {row["state"]: row for row in self._rows(select(EFFECTS).where(EFFECTS.c.key == key))}
        if (intent := rows.get("intent")) is None:
            return None
        if (done := rows.get("done")) is None:
            return Effect(key, "intent", intent["text"], "", intent["at"])
        return Effect(key, "done", intent["text"], done["text"], done["at"])

    def request_approval(self, request: ApprovalRequest) -> ApprovalRequest:
        """Add a request, or return the one with that id. Raises Conflict when that is over another digest."""
        self._add(REQUESTS, asdict(request))
        recorded = _recorded(self._request(request.id), f"approval request {request.id!r}")
        check_same_request(recorded, request)
        return recorded

    def approval_request(self, request_id: str) -> ApprovalRequest:
        """Return a request. Raises NotFound, and lists the open ones."""
        if (request := self._request(request_id)) is None:
            raise no_request(request_id, self.open_requests())
        return request

    def open_requests(self, model: str | None = None) -> tuple[ApprovalRequest, ...]:
        """Return the requests without a decision, oldest first, expired ones included."""
        waiting = select(REQUESTS).where(REQUESTS.c.id.not_in(select(DECISIONS.c.request_id)))
        if model is not None:
            waiting = waiting.where(REQUESTS.c.model == model)
        rows = self._rows(waiting.order_by(REQUESTS.c.sequence))
        return tuple(ApprovalRequest(**fields_of(row)) for row in rows)

    def decide(self, decision: Decision) -> Decision:
        """Record the one decision of a request. Of two at once, one is recorded.

        Raises:
            NotFound: no such request.
            Conflict: it is decided already, otherwise or by another person.
        """
        self.approval_request(decision.request_id)
        self._add(DECISIONS, asdict(decision))
        name = f"decision on {decision.request_id!r}"
        recorded = _recorded(self.decision(decision.request_id), name)
        check_same_decision(recorded, decision)
        return recorded

    def decision(self, request_id: str) -> Decision | None:
        """Return the decision of a request, or None."""
        rows = self._rows(select(DECISIONS).where(DECISIONS.c.request_id == request_id))
        return Decision(**fields_of(rows[0])) if rows else None

    def record_deployment(self, deployment: Deployment) -> Deployment:
        """Add a line, or return the one with that id."""
        self._add(DEPLOYMENTS, asdict(deployment))
        rows = self._rows(select(DEPLOYMENTS).where(DEPLOYMENTS.c.id == deployment.id))
        recorded = Deployment(**fields_of(rows[0])) if rows else None
        return _recorded(recorded, f"deployment {deployment.id!r}")

    def deployments(self, model: str, environment: str) -> tuple[Deployment, ...]:
        """Return the lines of a model in an environment, newest first."""
        table = DEPLOYMENTS.c
        lines = select(DEPLOYMENTS).where(table.model == model, table.environment == environment)
        return tuple(Deployment(**fields_of(row)) for row in self._rows(lines.order_by(table.sequence.desc())))

    def _request(self, request_id: str) -> ApprovalRequest | None:
        rows = self._rows(select(REQUESTS).where(REQUESTS.c.id == request_id))
        return ApprovalRequest(**fields_of(rows[0])) if rows else None

    def _add(self, table: Table, values: Mapping[str, Any]) -> None:
        """Insert a row, unless one with its key is there."""
        moments = {name: in_utc(value) for name, value in values.items() if isinstance(value, datetime)}
        try:
            self._database().write(lambda connection: connection.execute(insert(table), {**values, **moments}))
        except IntegrityError:
            return  # somebody was first; what is there is read next

    def _rows(self, query: Select[Any]) -> list[RowMapping]:
        def fetch(connection: Connection) -> list[RowMapping]:
            return list(connection.execute(query).mappings())

        return self._database().read(fetch)

    def _database(self) -> Database:
        if self._open is None:
            self._open = Database(self.url.get_secret_value())
        return self._open


def _recorded(record: Record | None, name: str) -> Record:
    if record is None:
        raise Rejected(f"ledger: {name} was refused by the database: a value is missing or out of its range.")
    return record
