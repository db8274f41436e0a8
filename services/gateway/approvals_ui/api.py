"""The API of the desk, for programs: a bearer token, JSON both ways. A browser's cookie opens nothing here."""

from concurrent.futures import ThreadPoolExecutor

from fastapi import APIRouter

from services.gateway.approvals_ui.decisions import cannot_decide_reason, find_request, record_decision
from services.gateway.approvals_ui.users import ApprovalsContext, SignedInUser, sign_in_with_password
from services.gateway.approvals_ui.views import decision_json, list_requests, request_json, request_view
from services.gateway.approvals_ui.web import RequestError, UiRequest, UiResponse, add_route, json_response
from services.gateway.rules.strict_json import read_object
from tasks.shared.rules.refusal import Refusal


class ApprovalsApi:
    """Handlers for programs."""

    def __init__(self, desk: ApprovalsContext) -> None:
        self._desk = desk

    def add_routes(self, router: APIRouter, pool: ThreadPoolExecutor) -> None:
        """Add the paths."""
        add_route(router, pool, "POST", "/api/sign-in", self.sign_in, _error_response)
        add_route(router, pool, "POST", "/api/sign-out", self.sign_out, _error_response)
        add_route(router, pool, "GET", "/api/approvals", self.get_requests, _error_response)
        add_route(router, pool, "GET", "/api/approvals/{name}", self.get_request, _error_response)
        add_route(router, pool, "POST", "/api/approvals/{name}/decision", self.decide, _error_response)

    def sign_in(self, call: UiRequest) -> UiResponse:
        """Give a token for a name and a password."""
        desk, said = self._desk, _json_body(call)
        name, password = said.get("name"), said.get("password")
        rules = desk.current_environment().gateway
        if not (isinstance(name, str) and isinstance(password, str)):
            raise RequestError(422, "Send a name and a password, both as text.")
        account = sign_in_with_password(desk, name, password, call.client_address)
        token, ends = desk.sessions.start("api", account.name, "password", (), rules, desk.clock())
        return json_response(200, {"token": token, "ends_at": ends.isoformat()})

    def sign_out(self, call: UiRequest) -> UiResponse:
        """End the session of the token."""
        self._desk.sessions.end(self._user(call).session.key)
        return json_response(200, {"said": "signed out"})

    def get_requests(self, call: UiRequest) -> UiResponse:
        """Return what waits and what is over."""
        self._user(call)
        waiting, over = list_requests(self._desk.current_environment(), self._desk.clock())
        return json_response(
            200,
            {
                "waiting": [request_json(e, full=False) for e in waiting],
                "over": [request_json(e, full=False) for e in over],
            },
        )

    def get_request(self, call: UiRequest) -> UiResponse:
        """Return one request with its evidence."""
        visitor, env = self._user(call), self._desk.current_environment()
        request = find_request(env, call.request_id)
        shown = request_view(env, request, env.approvals().links(request.id), self._desk.clock())
        return json_response(
            200, {**request_json(shown, full=True), "why_not": cannot_decide_reason(self._desk, visitor, request)}
        )

    def decide(self, call: UiRequest) -> UiResponse:
        """Record a decision: {"approve": true, "reason": "…", "digest": "…"}."""
        visitor, said = self._user(call), _json_body(call)
        approve, reason, digest = said.get("approve"), said.get("reason"), said.get("digest")
        if not (isinstance(approve, bool) and isinstance(reason, str) and isinstance(digest, str)):
            raise RequestError(422, 'Send "approve": true or false, "reason" and the "digest" that you were shown.')
        made = record_decision(
            self._desk,
            visitor,
            call.request_id,
            approved=approve,
            reason=reason,
            shown_digest=digest,
            channel="approvals API",
        )
        return json_response(200, decision_json(made))

    def _user(self, call: UiRequest) -> SignedInUser:
        kind, _, token = call.headers.get("authorization", "").partition(" ")
        return self._desk.require_user(
            self._desk.find_session("api", token.strip() if kind.lower() == "bearer" else "")
        )


def _json_body(call: UiRequest) -> dict[str, object]:
    if call.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RequestError(415, "Send application/json.")
    try:
        return read_object(call.body)
    except Refusal as cause:
        raise RequestError(400, str(cause)) from cause


def _error_response(_: UiRequest, denied: RequestError) -> UiResponse:
    headers = {"www-authenticate": "Bearer"} if denied.status == 401 else {}
    headers |= {"retry-after": "900"} if denied.status == 429 else {}
    return json_response(denied.status, {"said": "refused", "reason": denied.message}, headers)
