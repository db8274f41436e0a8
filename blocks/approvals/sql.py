"""Approvals in a SQL database. A unique column or the chain's lock decides which of two writers is first."""

from collections.abc import Callable
from dataclasses import asdict, replace

from sqlalchemy import Connection, insert, select

from blocks.approvals.anchor import hold_anchored_head
from blocks.approvals.base import (
    Approvals,
    check_same_request,
    final_decision,
    find_repeated_decision,
)
from blocks.approvals.chain import decisions_of, make_entry, record_to_json, request_digest
from blocks.database.common import to_utc
from blocks.database.engine import Database, lock_writers, recorded
from blocks.database.tables import CHAIN_ENTRIES, REQUESTS
from blocks.records.approvals import (
    ApprovalRequest,
    ChainEntry,
    ChainEntryKind,
    Decision,
    ErasureRecord,
    RefusedAttempt,
    Waiver,
)
from runtime.keys import Signer


class SqlApprovals(Approvals):
    """Requests and links as rows; any number of processes may add rows at the same time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_request(self, request: ApprovalRequest) -> ApprovalRequest:
        """Add a request, or return the one with that id. Raises Conflict if that has another digest."""
        stored = self._database.add_record(REQUESTS, request, "id")
        check_same_request(stored, request)
        return stored

    def open_requests(self, model: str | None = None) -> tuple[ApprovalRequest, ...]:
        """Return the requests without a final decision, oldest first, including expired ones."""
        query = select(REQUESTS) if model is None else select(REQUESTS).where(REQUESTS.c.model == model)
        requests = self._database.records(ApprovalRequest, query.order_by(REQUESTS.c.sequence))
        decisions = decisions_of(self.chain_entries()) if requests else ()
        by_request = {each.id: [one for one in decisions if one.request_id == each.id] for each in requests}
        return tuple(each for each in requests if final_decision(by_request[each.id], each.approvals) is None)

    def model_names(self, environment: str) -> tuple[str, ...]:
        """Return the models for which approval was ever requested in an environment, sorted."""
        query = select(REQUESTS.c.model).where(REQUESTS.c.environment == environment).distinct()
        return tuple(sorted(str(row["model"]) for row in self._database.rows(query)))

    def record_decision(self, decision: Decision, signer: Signer) -> Decision:
        """Sign and record a person's decision over a request: see `Approvals.record_decision`."""
        request = self.get_request(decision.request_id)
        complete = replace(decision, at=to_utc(decision.at), request_digest=request_digest(request))
        earlier: list[Decision] = []

        def body_unless_decided(connection: Connection) -> str:
            query = select(CHAIN_ENTRIES).where(CHAIN_ENTRIES.c.request_id == request.id)
            rows = connection.execute(query.order_by(CHAIN_ENTRIES.c.number)).mappings()
            decisions = decisions_of(ChainEntry(**row) for row in rows)
            earlier.extend(filter(None, [find_repeated_decision(decisions, complete, request.approvals)]))
            return "" if earlier else record_to_json(complete)

        self._append("decision", request.id, body_unless_decided, signer)
        return earlier[0] if earlier else complete

    def record_waiver(self, waiver: Waiver, signer: Signer) -> ChainEntry:
        """Sign and record a waiver."""
        in_zone = replace(waiver, at=to_utc(waiver.at), until=to_utc(waiver.until))
        return recorded(self._append("waiver", "", lambda _: record_to_json(in_zone), signer), "waiver")

    def record_erasure(self, erasure: ErasureRecord, signer: Signer) -> ChainEntry:
        """Sign and record an erasure."""
        in_zone = replace(erasure, at=to_utc(erasure.at))
        return recorded(self._append("erasure", "", lambda _: record_to_json(in_zone), signer), "erasure")

    def record_refusal(self, attempt: RefusedAttempt, signer: Signer | None) -> ChainEntry:
        """Record a refused attempt."""
        in_zone = replace(attempt, at=to_utc(attempt.at))
        link = self._append("refusal", attempt.request_id, lambda _: record_to_json(in_zone), signer)
        return recorded(link, "refusal")

    def chain_entries(self, request_id: str | None = None) -> tuple[ChainEntry, ...]:
        """Return the chain from its beginning, or the links of one request."""
        query = select(CHAIN_ENTRIES).order_by(CHAIN_ENTRIES.c.number)
        of_request = CHAIN_ENTRIES.c.request_id == request_id
        return self._database.records(ChainEntry, query if request_id is None else query.where(of_request))

    def _link_at(self, number: int) -> ChainEntry | None:
        query = select(CHAIN_ENTRIES).where(CHAIN_ENTRIES.c.number == number)
        return next(iter(self._database.records(ChainEntry, query)), None)

    def _append(
        self, kind: ChainEntryKind, request_id: str, body: Callable[[Connection], str], signer: Signer | None
    ) -> ChainEntry | None:
        """Add the next link, unless `body` returns "". A lock admits one process at a time."""
        with hold_anchored_head(signer.head if signer else None, self._link_at) as note:

            def add(connection: Connection) -> ChainEntry | None:
                lock_writers(connection)
                if not (text := body(connection)):
                    return None
                newest = select(CHAIN_ENTRIES).order_by(CHAIN_ENTRIES.c.number.desc()).limit(1)
                last = connection.execute(newest).mappings().first()
                link = make_entry(ChainEntry(**last) if last else None, kind, request_id, text, signer)
                note(link)
                connection.execute(insert(CHAIN_ENTRIES), asdict(link))
                return link

            return self._database.write(add)

    def _find_request(self, request_id: str) -> ApprovalRequest | None:
        query = select(REQUESTS).where(REQUESTS.c.id == request_id)
        return next(iter(self._database.records(ApprovalRequest, query)), None)
