"""The API of the desk, for programs: a bearer token, JSON both ways. A browser's cookie opens nothing here."""

from concurrent.futures import ThreadPoolExecutor

from fastapi import APIRouter

from services.gateway.approvals.deciding import request_of, settle, why_not
from services.gateway.approvals.people import Desk, Visitor, by_password
from services.gateway.approvals.views import as_json, decision_json, listed, show
from services.gateway.approvals.web import Call, Denied, Reply, add, json_reply
from services.gateway.rules.strict_json import read_object
from tasks.shared.rules.refusal import Refusal


class Api:
    """Handlers for programs."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def mount(self, router: APIRouter, pool: ThreadPoolExecutor) -> None:
        """Add the paths."""
        add(router, pool, "POST", "/api/sign-in", self.sign_in, _refuse)
        add(router, pool, "POST", "/api/sign-out", self.sign_out, _refuse)
        add(router, pool, "GET", "/api/approvals", self.list, _refuse)
        add(router, pool, "GET", "/api/approvals/{name}", self.one, _refuse)
        add(router, pool, "POST", "/api/approvals/{name}/decision", self.decide, _refuse)

    def sign_in(self, call: Call) -> Reply:
        """Give a token for a name and a password."""
        desk, said = self._desk, _object(call)
        name, password = said.get("name"), said.get("password")
        rules = desk.world().gateway
        if not (isinstance(name, str) and isinstance(password, str)):
            raise Denied(422, "Send a name and a password, both as text.")
        account = by_password(desk, name, password, call.address)
        token, ends = desk.sessions.open("api", account.name, "password", (), rules, desk.clock())
        return json_reply(200, {"token": token, "ends_at": ends.isoformat()})

    def sign_out(self, call: Call) -> Reply:
        """End the session of the token."""
        self._desk.sessions.end(self._visitor(call).session.key)
        return json_reply(200, {"said": "signed out"})

    def list(self, call: Call) -> Reply:
        """Return what waits and what is over."""
        self._visitor(call)
        waiting, over = listed(self._desk.world(), self._desk.clock())
        return json_reply(
            200,
            {"waiting": [as_json(e, whole=False) for e in waiting], "over": [as_json(e, whole=False) for e in over]},
        )

    def one(self, call: Call) -> Reply:
        """Return one request with its evidence."""
        visitor, world = self._visitor(call), self._desk.world()
        request = request_of(world, call.name)
        shown = show(world, request, world.approvals().links(request.id), self._desk.clock())
        return json_reply(200, {**as_json(shown, whole=True), "why_not": why_not(self._desk, visitor, request)})

    def decide(self, call: Call) -> Reply:
        """Record a decision: {"approve": true, "reason": "…", "digest": "…"}."""
        visitor, said = self._visitor(call), _object(call)
        approve, reason, digest = said.get("approve"), said.get("reason"), said.get("digest")
        if not (isinstance(approve, bool) and isinstance(reason, str) and isinstance(digest, str)):
            raise Denied(422, 'Send "approve": true or false, "reason" and the "digest" that you were shown.')
        made = settle(
            self._desk, visitor, call.name, approved=approve, reason=reason, digest=digest, by="approvals API"
        )
        return json_reply(200, decision_json(made))

    def _visitor(self, call: Call) -> Visitor:
        kind, _, token = call.headers.get("authorization", "").partition(" ")
        return self._desk.visitor(self._desk.session("api", token.strip() if kind.lower() == "bearer" else ""))


def _object(call: Call) -> dict[str, object]:
    if call.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Denied(415, "Send application/json.")
    try:
        return read_object(call.body)
    except Refusal as cause:
        raise Denied(400, str(cause)) from cause


def _refuse(_: Call, denied: Denied) -> Reply:
    headers = {"www-authenticate": "Bearer"} if denied.status == 401 else {}
    headers |= {"retry-after": "900"} if denied.status == 429 else {}
    return json_reply(denied.status, {"said": "refused", "reason": denied.said}, headers)
