"""Approvals in a SQL database. A unique column or the chain's lock decides which of two writers is first."""

from dataclasses import replace

from sqlalchemy import Connection, select

from blocks.approvals.base import (
    Approvals,
    check_same_request,
    final_decision,
    find_repeated_decision,
)
from blocks.approvals.chain import decisions_of, record_to_json, request_digest
from blocks.approvals.rows import SealedRows, SqlChain
from blocks.common.trust import ChainTrust
from blocks.database.common import to_utc
from blocks.database.engine import Database, Rows, add_record
from blocks.database.readable import record_fields
from blocks.database.tables import CHAIN_ENTRIES, REQUESTS
from blocks.records.actions import ActionOrder
from blocks.records.approvals import (
    ApprovalRequest,
    ChainEntry,
    Decision,
    ErasureRecord,
    RefusedAttempt,
    Waiver,
)
from runtime.keys import Signer


class SqlApprovals(Approvals):
    """Requests and links as rows; any number of processes may add rows at the same time.

    Requests are sealed and verified by `trust`; without it they are read and written as they stand.
    """

    def __init__(self, database: Database, trust: ChainTrust | None = None) -> None:
        self._database, self._chain = database, SqlChain(database)
        self._rows: Rows = SealedRows(database, trust) if trust else database

    def add_request(self, request: ApprovalRequest) -> ApprovalRequest:
        """Add a request, or return the one with that id. Raises Conflict if that has another digest."""
        stored = add_record(self._rows, REQUESTS, request, "id")
        check_same_request(stored, request)
        return stored

    def open_requests(self, model: str | None = None) -> tuple[ApprovalRequest, ...]:
        """Return the requests without a final decision, oldest first, including expired ones."""
        rows = self._rows.find(REQUESTS) if model is None else self._rows.find(REQUESTS, model=model)
        requests = tuple(ApprovalRequest(**row) for row in rows)
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

        def body_unless_decided(connection: Connection) -> list[str]:
            query = select(CHAIN_ENTRIES).where(CHAIN_ENTRIES.c.request_id == request.id)
            rows = connection.execute(query.order_by(CHAIN_ENTRIES.c.number)).mappings()
            decisions = decisions_of(ChainEntry(**record_fields(row, query)) for row in rows)
            earlier.extend(filter(None, [find_repeated_decision(decisions, complete, request.approvals)]))
            return [] if earlier else [record_to_json(complete)]

        self._chain.append("decision", request.id, body_unless_decided, signer)
        return earlier[0] if earlier else complete

    def record_waiver(self, waiver: Waiver, signer: Signer) -> ChainEntry:
        """Sign and record a waiver."""
        in_zone = replace(waiver, at=to_utc(waiver.at), until=to_utc(waiver.until))
        return self._chain.append("waiver", "", lambda _: [record_to_json(in_zone)], signer)[0]

    def record_erasure(self, erasure: ErasureRecord, signer: Signer) -> ChainEntry:
        """Sign and record an erasure."""
        in_zone = replace(erasure, at=to_utc(erasure.at))
        return self._chain.append("erasure", "", lambda _: [record_to_json(in_zone)], signer)[0]

    def record_order(self, order: ActionOrder, signer: Signer) -> ChainEntry:
        """Sign and record an order."""
        in_zone = replace(order, at=to_utc(order.at), expires=to_utc(order.expires))
        return self._chain.append("action", "", lambda _: [record_to_json(in_zone)], signer)[0]

    def record_refusal(self, attempt: RefusedAttempt, signer: Signer | None) -> ChainEntry:
        """Record a refused attempt."""
        in_zone = replace(attempt, at=to_utc(attempt.at))
        return self._chain.append("refusal", attempt.request_id, lambda _: [record_to_json(in_zone)], signer)[0]

    def chain_entries(self, request_id: str | None = None) -> tuple[ChainEntry, ...]:
        """Return the chain from its beginning, or the links of one request."""
        if request_id is None:
            return self._chain.links()
        of_request = select(CHAIN_ENTRIES).where(CHAIN_ENTRIES.c.request_id == request_id)
        return self._database.records(ChainEntry, of_request.order_by(CHAIN_ENTRIES.c.number))

    def _find_request(self, request_id: str) -> ApprovalRequest | None:
        return next((ApprovalRequest(**row) for row in self._rows.find(REQUESTS, id=request_id)), None)
