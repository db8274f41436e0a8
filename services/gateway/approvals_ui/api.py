"""The router of the approvals page, and its JSON API with bearer tokens. The API does not accept session cookies."""

from concurrent.futures import ThreadPoolExecutor

from fastapi import APIRouter, Response

from services.gateway.approvals_ui.actions import ActionsSite
from services.gateway.approvals_ui.decisions import cannot_decide_reason, find_request, record_decision
from services.gateway.approvals_ui.oidc_pages import OidcPages
from services.gateway.approvals_ui.pages import Pages
from services.gateway.approvals_ui.users import ApprovalsContext, sign_in_with_password
from services.gateway.approvals_ui.views import decision_json, list_requests, request_json, request_view
from services.gateway.approvals_ui.web import RequestError, UiRequest, add_route, json_response
from services.gateway.limits import client_address
from services.gateway.rules.strict_json import read_object
from services.gateway.run_starter import PrefectRunStarter, RunStarter
from tasks.shared.rules.refusal import Refusal

THREADS = 4
"""Threads for requests to the approvals page. Webhook deliveries use other threads, so they never wait for these."""


def create_router(context: ApprovalsContext, starter: RunStarter | None = None) -> APIRouter:
    """Return the routes of the pages and of the APIs; `starter` starts runs, by default over the Prefect API."""
    router, pool = APIRouter(), ThreadPoolExecutor(THREADS, "approvals-ui")
    pages = Pages(context)
    pages.mount(router, pool)
    OidcPages(context, pages).mount(router, pool)
    ApprovalsApi(context).add_routes(router, pool)
    ActionsSite(context, pages, starter or PrefectRunStarter()).add_routes(router, pool)
    return router


class ApprovalsApi:
    """The handlers of the API."""

    def __init__(self, context: ApprovalsContext) -> None:
        self._context = context

    def add_routes(self, router: APIRouter, pool: ThreadPoolExecutor) -> None:
        """Add the routes of the API."""
        add_route(router, pool, "POST", "/api/sign-in", self.sign_in, _error_response)
        add_route(router, pool, "POST", "/api/sign-out", self.sign_out, _error_response)
        add_route(router, pool, "GET", "/api/approvals", self.get_requests, _error_response)
        add_route(router, pool, "GET", "/api/approvals/{name}", self.get_request, _error_response)
        add_route(router, pool, "POST", "/api/approvals/{name}/decision", self.decide, _error_response)

    def sign_in(self, call: UiRequest) -> Response:
        """Return a token for a name and a password."""
        context, content = self._context, _json_body(call)
        name, password = content.get("name"), content.get("password")
        rules = context.current_environment().gateway
        if not (isinstance(name, str) and isinstance(password, str)):
            raise RequestError(422, 'Send "name" and "password", both as text.')
        account = sign_in_with_password(context, name, password, client_address(call))
        token, ends = context.sessions.start("api", account.name, "password", (), rules, context.clock())
        return json_response(200, {"token": token, "ends_at": ends.isoformat()})

    def sign_out(self, call: UiRequest) -> Response:
        """End the session of the token."""
        self._context.sessions.end(self._context.signed_in(call, "api").session.key)
        return json_response(200, {"outcome": "signed out"})

    def get_requests(self, call: UiRequest) -> Response:
        """Return the pending and the closed requests."""
        self._context.signed_in(call, "api")
        waiting, closed = list_requests(self._context.current_environment(), self._context.clock())
        listed = {"waiting": waiting, "closed": closed}
        return json_response(
            200, {name: [request_json(view, full=False) for view in views] for name, views in listed.items()}
        )

    def get_request(self, call: UiRequest) -> Response:
        """Return one request with its evidence."""
        user, env = self._context.signed_in(call, "api"), self._context.current_environment()
        request = find_request(env, call.path_params["name"])
        view = request_view(env, request, env.approvals().chain_entries(request.id), self._context.clock())
        reason = cannot_decide_reason(self._context, user, request)
        return json_response(200, {**request_json(view, full=True), "cannot_decide_reason": reason})

    def decide(self, call: UiRequest) -> Response:
        """Record a decision: {"approve": true, "reason": "…", "digest": "…"}."""
        user, content = self._context.signed_in(call, "api"), _json_body(call)
        approve, reason, digest = content.get("approve"), content.get("reason"), content.get("digest")
        if not (isinstance(approve, bool) and isinstance(reason, str) and isinstance(digest, str)):
            raise RequestError(422, 'Send "approve": true or false, a "reason", and the "digest" of the request.')
        decision = record_decision(
            self._context,
            user,
            call.path_params["name"],
            approved=approve,
            reason=reason,
            shown_digest=digest,
            channel="approvals API",
        )
        return json_response(200, decision_json(decision))


def _json_body(call: UiRequest) -> dict[str, object]:
    if call.media_type != "application/json":
        raise RequestError(415, "Send application/json.")
    try:
        return read_object(call.content)
    except Refusal as cause:
        raise RequestError(400, str(cause)) from cause


def _error_response(_: UiRequest, error: RequestError) -> Response:
    headers = {"www-authenticate": "Bearer"} if error.status == 401 else {}
    headers |= {"retry-after": "900"} if error.status == 429 else {}
    return json_response(error.status, {"outcome": "refused", "reason": error.message}, headers)
