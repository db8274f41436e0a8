"""A ledger in a SQL database: a SQLite file for one machine, PostgreSQL for a team. The same statements on both.

Whoever is first is decided by a unique column: each write inserts, and then returns what is there. Links of the
chain of decisions are added one at a time.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any, TypeVar

from pydantic import Field, PrivateAttr, SecretStr
from sqlalchemy import Connection, RowMapping, Select, Table, insert, select
from sqlalchemy.exc import IntegrityError

from blocks.common.errors import Rejected
from blocks.ledger.anchor import anchored
from blocks.ledger.base import (
    ApprovalRequest,
    Decision,
    Deployment,
    Effect,
    Ledger,
    Link,
    LinkKind,
    Refused,
    Waiver,
)
from blocks.ledger.chain import body_of, decisions_of, make_link, request_digest
from blocks.ledger.engine import Database, one_at_a_time
from blocks.ledger.rows import fields_of
from blocks.ledger.rules import check_same_request, in_utc, no_request, nothing_intended, outcome, recorded_before
from blocks.ledger.sql_inbox import SqlInbox
from blocks.ledger.sql_outbox import SqlOutbox
from blocks.ledger.tables import DEPLOYMENTS, EFFECTS, LINKS, REQUESTS
from runtime.keys import Signer

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
        wanted = select(REQUESTS) if model is None else select(REQUESTS).where(REQUESTS.c.model == model)
        asked = [ApprovalRequest(**fields_of(row)) for row in self._rows(wanted.order_by(REQUESTS.c.sequence))]
        said = decisions_of(self.links()) if asked else ()
        by_request = {each.id: [one for one in said if one.request_id == each.id] for each in asked}
        return tuple(each for each in asked if outcome(by_request[each.id], each.approvals) is None)

    def decide(self, decision: Decision, signer: Signer) -> Decision:
        """Sign and record a person's decision over a request; see `Ledger.decide`."""
        request = self.approval_request(decision.request_id)
        given = replace(decision, at=in_utc(decision.at), request_digest=request_digest(request))
        found: list[Decision] = []

        def unless_decided(connection: Connection) -> str:
            own = select(LINKS).where(LINKS.c.request_id == request.id).order_by(LINKS.c.number)
            said = decisions_of(Link(**row) for row in connection.execute(own).mappings())
            found.extend(filter(None, [recorded_before(said, given, request.approvals)]))
            return "" if found else body_of(given)

        self._append("decision", request.id, unless_decided, signer)
        return found[0] if found else given

    def decision(self, request_id: str) -> Decision | None:
        """Return the decision that ended the request, or None while it is open."""
        if (request := self._request(request_id)) is None:
            return None
        return outcome(decisions_of(self.links(request_id)), request.approvals)

    def waive(self, waiver: Waiver, signer: Signer) -> Link:
        """Sign and record a waiver."""
        given = replace(waiver, at=in_utc(waiver.at), until=in_utc(waiver.until))
        return _recorded(self._append("waiver", "", lambda _: body_of(given), signer), "waiver")

    def refuse(self, refused: Refused, signer: Signer | None) -> Link:
        """Record an attempt that was refused."""
        given = replace(refused, at=in_utc(refused.at))
        return _recorded(self._append("refusal", given.request_id, lambda _: body_of(given), signer), "refusal")

    def links(self, request_id: str | None = None) -> tuple[Link, ...]:
        """Return the chain from its beginning, or the links of one request."""
        wanted = select(LINKS) if request_id is None else select(LINKS).where(LINKS.c.request_id == request_id)
        return tuple(Link(**row) for row in self._rows(wanted.order_by(LINKS.c.number)))

    def _link_at(self, number: int) -> Link | None:
        rows = self._rows(select(LINKS).where(LINKS.c.number == number))
        return Link(**rows[0]) if rows else None

    def _append(
        self, kind: LinkKind, request_id: str, body: Callable[[Connection], str], signer: Signer | None
    ) -> Link | None:
        """Add the link that follows the last one; none when `body` returns "". One process at a time does this."""
        with anchored(signer.head if signer else None, self._link_at) as note:

            def add(connection: Connection) -> Link | None:
                one_at_a_time(connection)
                if not (text := body(connection)):
                    return None
                last = connection.execute(select(LINKS).order_by(LINKS.c.number.desc()).limit(1)).mappings().first()
                link = make_link(Link(**last) if last else None, kind, request_id, text, signer)
                note(link)
                connection.execute(insert(LINKS), asdict(link))
                return link

            return self._database().write(add)

    def record_deployment(self, deployment: Deployment) -> Deployment:
        """Add a line, or return the one with that id."""
        self._add(DEPLOYMENTS, asdict(deployment))
        rows = self._rows(select(DEPLOYMENTS).where(DEPLOYMENTS.c.id == deployment.id))
        recorded = Deployment(**fields_of(rows[0])) if rows else None
        return _recorded(recorded, f"deployment {deployment.id!r}")

    def models(self, environment: str) -> tuple[str, ...]:
        """Return the models for which something was asked or deployed in an environment, sorted."""
        found: set[str] = set()
        for table in (REQUESTS, DEPLOYMENTS):
            named = select(table.c.model).where(table.c.environment == environment).distinct()
            found |= {str(row.model) for row in self._rows(named)}
        return tuple(sorted(found))

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
