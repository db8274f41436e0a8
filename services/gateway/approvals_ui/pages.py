"""The approvals page: sign in, list of requests, one request with its evidence, decide, sign out."""

import re
import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Response

from runtime.digests import text_digest
from services.gateway.approvals_ui.decisions import cannot_decide_reason, find_request, record_decision
from services.gateway.approvals_ui.users import (
    SESSION_COOKIE,
    ApprovalsContext,
    SignedInUser,
    is_cross_site,
    sign_in_with_password,
)
from services.gateway.approvals_ui.views import decision_chain_problem, list_requests, request_view, review_attachments
from services.gateway.approvals_ui.web import RequestError, UiRequest, add_route, redirect, render_page, stylesheet
from services.gateway.limits import client_address

PRE_SESSION_COOKIE = "ratchet-pre-session"
"""The cookie of a browser that has not signed in; it protects the sign-in form."""

_OWN_PATHS = re.compile(r"/actions|/approvals(/[A-Za-z0-9][A-Za-z0-9._-]{0,199})?")


class Pages:
    """The handlers of the pages."""

    def __init__(self, context: ApprovalsContext) -> None:
        self._context = context

    def mount(self, router: APIRouter, pool: ThreadPoolExecutor) -> None:
        """Add the routes of the pages."""
        add_route(router, pool, "GET", "/", lambda _: redirect("/approvals"), self.error_page)
        add_route(router, pool, "GET", "/static/style.css", stylesheet, self.error_page)
        add_route(router, pool, "GET", "/sign-in", self.sign_in_page, self.error_page)
        add_route(router, pool, "POST", "/sign-in", self.sign_in, self.error_page)
        add_route(router, pool, "POST", "/sign-out", self.sign_out, self.error_page)
        add_route(router, pool, "POST", "/token", self.token, self.error_page)
        add_route(router, pool, "GET", "/approvals", self.requests_page, self.error_page)
        add_route(router, pool, "GET", "/approvals/{name}", self.request_page, self.error_page)
        add_route(router, pool, "POST", "/approvals/{name}", self.decide, self.error_page)
        add_route(router, pool, "GET", "/approvals/{name}/plot.png", self.plot, self.error_page)

    def sign_in_page(self, call: UiRequest) -> Response:
        """Show the sign-in form; redirect a user who has signed in already."""
        next_path = own_path(call.query.get("next", ""))
        if self._context.find_session(call) is not None:
            return redirect(next_path)
        return self.sign_in_form(call, 200, "", next_path)

    def sign_in(self, call: UiRequest) -> Response:
        """Start a session for a name and a password."""
        context, form = self._context, call.form_fields()
        pre_session, next_path = context.cookie(call, PRE_SESSION_COOKIE), own_path(form.get("next", ""))
        is_ours = context.sessions.is_form_token(_pre_session_key(pre_session), form.get("token", ""))
        if not pre_session or not is_ours or is_cross_site(call):
            return self.sign_in_form(call, 403, "This form is out of date. Try again.", next_path)
        try:
            account = sign_in_with_password(
                context, form.get("name", ""), form.get("password", ""), client_address(call)
            )
        except RequestError as error:
            return self.sign_in_form(call, error.status, error.message, next_path)
        return self.start_session(call, account.name, "password", (), next_path)

    def start_session(
        self, call: UiRequest, name: str, via: str, groups: tuple[str, ...], next_path: str, *, via_page: bool = False
    ) -> Response:
        """Start a session, end the previous one, and continue to `next_path`.

        `via_page`: redirect through a page of our own, because a cross-site redirect does not send a
        SameSite=Strict cookie.
        """
        context, before = self._context, self._context.find_session(call)
        if before is not None:
            context.sessions.end(before.key)
        rules = context.current_environment().gateway
        token, _ = context.sessions.start("page", name, via, groups, rules, context.clock())
        path = own_path(next_path)
        response = render_page(200, "continue.html", next_path=path) if via_page else redirect(path)
        context.set_cookie(response, SESSION_COOKIE, token, int(rules.session_hours * 3600))
        context.set_cookie(response, PRE_SESSION_COOKIE, "", 0)
        return response

    def sign_out(self, call: UiRequest) -> Response:
        """End the session on the server and in the browser."""
        if (session := self._context.find_session(call)) is not None:
            self._context.check_form(session, call)
            self._context.sessions.end(session.key)
        response = redirect("/sign-in")
        self._context.set_cookie(response, SESSION_COOKIE, "", 0)
        return response

    def token(self, call: UiRequest) -> Response:
        """Show a new API token, once; also for users of an identity provider."""
        user, context = self._context.signed_in(call), self._context
        context.check_form(user.session, call)
        session, rules = user.session, context.current_environment().gateway
        api_token, ends = context.sessions.start(
            "api", session.name, session.sign_in_via, session.groups, rules, context.clock()
        )
        return self._signed_in_page(200, "token.html", user, api_token=api_token, ends=ends, idle=rules.idle_minutes)

    def requests_page(self, call: UiRequest) -> Response:
        """Show the pending and the closed requests."""
        user = self._context.signed_in(call)
        waiting, closed = list_requests(self._context.current_environment(), self._context.clock())
        return self._signed_in_page(200, "list.html", user, waiting=waiting, closed=closed)

    def request_page(self, call: UiRequest) -> Response:
        """Show a request with its evidence."""
        return self._render_request(call.path_params["name"], self._context.signed_in(call))

    def plot(self, call: UiRequest) -> Response:
        """Return the plot of a request's evaluation."""
        self._context.signed_in(call)
        env = self._context.current_environment()
        request = find_request(env, call.path_params["name"])
        view = request_view(env, request, (), self._context.clock())
        if not (picture := review_attachments(env, request, view.evidence).plot):
            raise RequestError(404, "This request has no plot.")
        return Response(picture, media_type="image/png")

    def decide(self, call: UiRequest) -> Response:
        """Record a decision, or show the request again with the reason why the decision does not count."""
        user = self._context.signed_in(call)
        form = self._context.check_form(user.session, call)
        verdict, reason = form.get("verdict", ""), form.get("reason", "").strip()
        try:
            if verdict not in {"approve", "reject"}:
                raise RequestError(422, "Choose approve or reject.")
            if len(reason) < 3:
                raise RequestError(422, "Give a reason: it is recorded with your name.")
            record_decision(
                self._context, user, call.path_params["name"], approved=verdict == "approve", reason=reason,
                shown_digest=form.get("digest", ""), channel="approvals page",
            )  # fmt: skip
        except RequestError as error:
            if error.status in {404, 503}:
                raise
            return self._render_request(call.path_params["name"], user, error.status, error.message, reason)
        return redirect(f"/approvals/{quote(call.path_params['name'])}")

    def error_page(self, call: UiRequest, error: RequestError) -> Response:
        """Show an error page. Users who are not signed in get the sign-in form."""
        if error.status == 401:
            if call.headers.get("sec-fetch-site") == "cross-site" and call.method == "GET":
                # the browser sends a strict cookie only with links of our own pages
                return render_page(401, "continue.html", next_path=own_path(call.path))
            return self.sign_in_form(
                call, 401, "Sign in to continue." if call.method == "POST" else "", own_path(call.path)
            )
        return render_page(error.status, "message.html", message=error.message)

    def sign_in_form(self, call: UiRequest, status: int, problem: str, next_path: str) -> Response:
        """Show the sign-in form, bound to this browser by a cookie."""
        context, rules = self._context, self._context.current_environment().gateway
        pre_session = context.cookie(call, PRE_SESSION_COOKIE) or secrets.token_urlsafe(24)
        response = render_page(
            status, "sign_in.html", problem=problem, next_path=next_path, passwords=rules.allow_passwords,
            provider=rules.oidc is not None, token=context.sessions.form_token(_pre_session_key(pre_session)),
        )  # fmt: skip
        context.set_cookie(response, PRE_SESSION_COOKIE, pre_session, 3600)
        return response

    def _render_request(
        self, name: str, user: SignedInUser, status: int = 200, problem: str = "", reason: str = ""
    ) -> Response:
        env, now = self._context.current_environment(), self._context.clock()
        request = find_request(env, name)
        view = request_view(env, request, env.approvals().chain_entries(request.id), now)
        return self._signed_in_page(
            status, "request.html", user, view=view, problem=problem, reason=reason,
            attachments=review_attachments(env, request, view.evidence), damage=decision_chain_problem(env),
            cannot_decide_reason=cannot_decide_reason(self._context, user, request),
        )  # fmt: skip

    def _signed_in_page(self, status: int, template: str, user: SignedInUser, **values: Any) -> Response:
        token = self._context.sessions.form_token(user.session.key)
        return render_page(status, template, user=user, token=token, **values)


def own_path(path: str) -> str:
    """Return `path` if it belongs to the approvals page, else that of the list (prevents open redirects)."""
    return path if _OWN_PATHS.fullmatch(path) else "/approvals"


def _pre_session_key(cookie: str) -> str:
    return "before " + text_digest(cookie, "surrogatepass")
