"""The approvals page: sign in, list of requests, one request with its evidence, decide, sign out."""

import re
import secrets
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter

from runtime.digests import text_digest
from services.gateway.approvals_ui.decisions import cannot_decide_reason, find_request, record_decision
from services.gateway.approvals_ui.sessions import Session
from services.gateway.approvals_ui.users import ApprovalsContext, SignedInUser, sign_in_with_password
from services.gateway.approvals_ui.views import decision_chain_problem, list_requests, request_view, review_attachments
from services.gateway.approvals_ui.web import (
    STYLESHEET,
    RequestError,
    UiRequest,
    UiResponse,
    add_route,
    redirect,
    render_page,
)

SESSION_COOKIE, PRE_SESSION_COOKIE = "ratchet-session", "ratchet-pre-session"
"""Cookie names: the session, and the pre-session that protects the sign-in form."""

_OWN_PATHS = re.compile(r"/approvals(/[A-Za-z0-9._-]{1,200})?")


class Pages:
    """The handlers of the pages."""

    def __init__(self, context: ApprovalsContext) -> None:
        self._context = context

    def mount(self, router: APIRouter, pool: ThreadPoolExecutor) -> None:
        """Add the routes of the pages."""
        add_route(router, pool, "GET", "/", lambda _: redirect("/approvals"), self.error_page)
        add_route(router, pool, "GET", "/static/style.css", lambda _: STYLESHEET, self.error_page)
        add_route(router, pool, "GET", "/sign-in", self.sign_in_page, self.error_page)
        add_route(router, pool, "POST", "/sign-in", self.sign_in, self.error_page)
        add_route(router, pool, "POST", "/sign-out", self.sign_out, self.error_page)
        add_route(router, pool, "POST", "/token", self.token, self.error_page)
        add_route(router, pool, "GET", "/approvals", self.requests_page, self.error_page)
        add_route(router, pool, "GET", "/approvals/{name}", self.request_page, self.error_page)
        add_route(router, pool, "POST", "/approvals/{name}", self.decide, self.error_page)
        add_route(router, pool, "GET", "/approvals/{name}/plot.png", self.plot, self.error_page)

    def sign_in_page(self, call: UiRequest) -> UiResponse:
        """Show the sign-in form; redirect a user who has signed in already."""
        if self._session(call) is not None:
            return redirect(own_path(call.query.get("next", "")))
        return self.sign_in_form(call, 200, "", own_path(call.query.get("next", "")))

    def sign_in(self, call: UiRequest) -> UiResponse:
        """Start a session for a name and a password."""
        context, form = self._context, call.form()
        pre_session = call.cookies.get(self.cookie_name(PRE_SESSION_COOKIE), "")
        if not pre_session or not context.sessions.is_form_token(_pre_session_key(pre_session), form.get("token", "")):
            return self.sign_in_form(call, 403, "This form is out of date. Try again.", own_path(form.get("next", "")))
        try:
            account = sign_in_with_password(
                context, form.get("name", ""), form.get("password", ""), call.client_address
            )
        except RequestError as error:
            return self.sign_in_form(call, error.status, error.message, own_path(form.get("next", "")))
        return self.start_session(call, account.name, "password", (), own_path(form.get("next", "")))

    def start_session(
        self, call: UiRequest, name: str, via: str, groups: tuple[str, ...], next_path: str, *, via_page: bool = False
    ) -> UiResponse:
        """Start a session, end the previous one, and continue to `next_path`.

        `via_page`: redirect through a page of our own, because a cross-site redirect does not send a
        SameSite=Strict cookie.
        """
        context, before = self._context, self._session(call)
        if before is not None:
            context.sessions.end(before.key)
        rules = context.current_environment().gateway
        token, _ = context.sessions.start("page", name, via, groups, rules, context.clock())
        path = own_path(next_path)
        response = render_page(200, "continue.html", next_path=path) if via_page else redirect(path)
        return response.with_cookies(
            self.set_cookie(SESSION_COOKIE, token, int(rules.session_hours * 3600)),
            self.set_cookie(PRE_SESSION_COOKIE, "", 0),
        )

    def sign_out(self, call: UiRequest) -> UiResponse:
        """End the session on the server and in the browser."""
        session = self._session(call)
        if session is None:
            return redirect("/sign-in").with_cookies(self.set_cookie(SESSION_COOKIE, "", 0))
        self._check_form(session, call.form())
        self._context.sessions.end(session.key)
        return redirect("/sign-in").with_cookies(self.set_cookie(SESSION_COOKIE, "", 0))

    def token(self, call: UiRequest) -> UiResponse:
        """Show a new API token, once; also for users of an identity provider."""
        user, context = self._user(call), self._context
        self._check_form(user.session, call.form())
        session, rules = user.session, context.current_environment().gateway
        api_token, ends = context.sessions.start(
            "api", session.name, session.sign_in_via, session.groups, rules, context.clock()
        )
        return self._signed_in_page(200, "token.html", user, api_token=api_token, ends=ends, idle=rules.idle_minutes)

    def requests_page(self, call: UiRequest) -> UiResponse:
        """Show the pending and the closed requests."""
        user = self._user(call)
        waiting, closed = list_requests(self._context.current_environment(), self._context.clock())
        return self._signed_in_page(200, "list.html", user, waiting=waiting, closed=closed)

    def request_page(self, call: UiRequest) -> UiResponse:
        """Show a request with its evidence."""
        return self._render_request(call.request_id, self._user(call))

    def plot(self, call: UiRequest) -> UiResponse:
        """Return the plot of a request's evaluation."""
        self._user(call)
        env = self._context.current_environment()
        request = find_request(env, call.request_id)
        view = request_view(env, request, (), self._context.clock())
        if not (picture := review_attachments(env, request, view.evidence).plot):
            raise RequestError(404, "This request has no plot.")
        return UiResponse(200, picture, "image/png")

    def decide(self, call: UiRequest) -> UiResponse:
        """Record a decision, or show the request again with the reason why the decision does not count."""
        user, form = self._user(call), call.form()
        self._check_form(user.session, form)
        verdict, reason = form.get("verdict", ""), form.get("reason", "").strip()
        try:
            if verdict not in {"approve", "reject"}:
                raise RequestError(422, "Choose approve or reject.")
            if len(reason) < 3:
                raise RequestError(422, "Give a reason: it is recorded with your name.")
            record_decision(
                self._context, user, call.request_id, approved=verdict == "approve", reason=reason,
                shown_digest=form.get("digest", ""), channel="approvals page",
            )  # fmt: skip
        except RequestError as error:
            if error.status in {404, 503}:
                raise
            return self._render_request(call.request_id, user, error.status, error.message, reason)
        return redirect(f"/approvals/{quote(call.request_id)}")

    def error_page(self, call: UiRequest, error: RequestError) -> UiResponse:
        """Show an error page. Users who are not signed in get the sign-in form."""
        if error.status == 401:
            if call.headers.get("sec-fetch-site") == "cross-site" and call.method == "GET":
                # the browser sends a strict cookie only with links of our own pages
                return render_page(401, "continue.html", next_path=own_path(call.path))
            return self.sign_in_form(
                call, 401, "Sign in to continue." if call.method == "POST" else "", own_path(call.path)
            )
        return render_page(error.status, "message.html", message=error.message)

    def sign_in_form(self, call: UiRequest, status: int, problem: str, next_path: str) -> UiResponse:
        """Show the sign-in form, bound to this browser by a cookie."""
        name, rules = self.cookie_name(PRE_SESSION_COOKIE), self._context.current_environment().gateway
        pre_session = call.cookies.get(name, "") or secrets.token_urlsafe(24)
        response = render_page(
            status, "sign_in.html", problem=problem, next_path=next_path, passwords=rules.allow_passwords,
            provider=rules.oidc is not None, token=self._context.sessions.form_token(_pre_session_key(pre_session)),
        )  # fmt: skip
        return response.with_cookies(self.set_cookie(PRE_SESSION_COOKIE, pre_session, 3600))

    def cookie_name(self, name: str) -> str:
        """Return a cookie's full name. With https the prefix `__Host-` limits the cookie to this host and to https."""
        return f"__Host-{name}" if self._secure else name

    def set_cookie(self, name: str, value: str, seconds: int, *, site: str = "Strict") -> str:
        """Return a Set-Cookie value; `seconds` of 0 removes the cookie."""
        secure = "; Secure" if self._secure else ""
        return f"{self.cookie_name(name)}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite={site}{secure}"

    @property
    def _secure(self) -> bool:
        return self._context.current_environment().gateway.address.startswith("https://")

    def _session(self, call: UiRequest) -> Session | None:
        return self._context.find_session("page", call.cookies.get(self.cookie_name(SESSION_COOKIE), ""))

    def _user(self, call: UiRequest) -> SignedInUser:
        return self._context.require_user(self._session(call))

    def _check_form(self, session: Session, form: Mapping[str, str]) -> None:
        if not self._context.sessions.is_form_token(session.key, form.get("token", "")):
            raise RequestError(
                403,
                "This form is out of date, or was not sent from this page. Nothing was done: go back and try again.",
            )

    def _render_request(
        self, name: str, user: SignedInUser, status: int = 200, problem: str = "", reason: str = ""
    ) -> UiResponse:
        env, now = self._context.current_environment(), self._context.clock()
        request = find_request(env, name)
        view = request_view(env, request, env.approvals().chain_entries(request.id), now)
        return self._signed_in_page(
            status, "request.html", user, view=view, problem=problem, reason=reason,
            attachments=review_attachments(env, request, view.evidence), damage=decision_chain_problem(env),
            cannot_decide_reason=cannot_decide_reason(self._context, user, request),
        )  # fmt: skip

    def _signed_in_page(self, status: int, template: str, user: SignedInUser, **values: Any) -> UiResponse:
        token = self._context.sessions.form_token(user.session.key)
        return render_page(status, template, user=user, token=token, **values)


def own_path(path: str) -> str:
    """Return `path` if it belongs to the approvals page, else that of the list (prevents open redirects)."""
    return path if _OWN_PATHS.fullmatch(path) else "/approvals"


def _pre_session_key(cookie: str) -> str:
    return "before " + text_digest(cookie, "surrogatepass")
