"""Approvals in a SQL database. Which of two writers is first is decided by a unique column or by the chain's lock."""

from collections.abc import Callable
from dataclasses import asdict, replace

from sqlalchemy import Connection, insert, select

from blocks.approvals.anchor import anchored
from blocks.approvals.base import ApprovalRequest, Approvals, Decision, Link, LinkKind, RefusedAttempt, Waiver
from blocks.approvals.chain import body_of, decisions_of, make_link, request_digest
from blocks.approvals.rules import check_same_request, no_request, outcome, recorded_before
from blocks.database.engine import Database, fields_of, one_at_a_time, recorded
from blocks.database.moments import in_utc
from blocks.database.tables import LINKS, REQUESTS
from runtime.keys import Signer


class SqlApprovals(Approvals):
    """Requests and links as rows that any number of processes add to at once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def request_approval(self, request: ApprovalRequest) -> ApprovalRequest:
        """Add a request, or return the one with that id. Raises Conflict when that is over another digest."""
        self._database.add(REQUESTS, asdict(request))
        found = recorded(self._request(request.id), f"approval request {request.id!r}")
        check_same_request(found, request)
        return found

    def approval_request(self, request_id: str) -> ApprovalRequest:
        """Return a request. Raises NotFound, and lists the open ones."""
        if (request := self._request(request_id)) is None:
            raise no_request(request_id, self.open_requests())
        return request

    def open_requests(self, model: str | None = None) -> tuple[ApprovalRequest, ...]:
        """Return the requests without a decision, oldest first, expired ones included."""
        wanted = select(REQUESTS) if model is None else select(REQUESTS).where(REQUESTS.c.model == model)
        rows = self._database.rows(wanted.order_by(REQUESTS.c.sequence))
        requests = [ApprovalRequest(**fields_of(row)) for row in rows]
        said = decisions_of(self.links()) if requests else ()
        by_request = {each.id: [one for one in said if one.request_id == each.id] for each in requests}
        return tuple(each for each in requests if outcome(by_request[each.id], each.approvals) is None)

    def models(self, environment: str) -> tuple[str, ...]:
        """Return the models for which approval was ever requested in an environment, sorted."""
        named = select(REQUESTS.c.model).where(REQUESTS.c.environment == environment).distinct()
        return tuple(sorted(str(row["model"]) for row in self._database.rows(named)))

    def decide(self, decision: Decision, signer: Signer) -> Decision:
        """Sign and record a person's decision over a request; see `Approvals.decide`."""
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
        return recorded(self._append("waiver", "", lambda _: body_of(given), signer), "waiver")

    def refuse(self, attempt: RefusedAttempt, signer: Signer | None) -> Link:
        """Record an attempt that was refused."""
        given = replace(attempt, at=in_utc(attempt.at))
        return recorded(self._append("refusal", given.request_id, lambda _: body_of(given), signer), "refusal")

    def links(self, request_id: str | None = None) -> tuple[Link, ...]:
        """Return the chain from its beginning, or the links of one request."""
        wanted = select(LINKS) if request_id is None else select(LINKS).where(LINKS.c.request_id == request_id)
        return tuple(Link(**row) for row in self._database.rows(wanted.order_by(LINKS.c.number)))

    def _link_at(self, number: int) -> Link | None:
        rows = self._database.rows(select(LINKS).where(LINKS.c.number == number))
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

            return self._database.write(add)

    def _request(self, request_id: str) -> ApprovalRequest | None:
        rows = self._database.rows(select(REQUESTS).where(REQUESTS.c.id == request_id))
        return ApprovalRequest(**fields_of(rows[0])) if rows else None
