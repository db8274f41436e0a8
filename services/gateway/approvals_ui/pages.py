"""The pages of the desk: sign in, what waits, one request with its evidence, decide, sign out."""

import re
import secrets
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter

from runtime.digests import text_digest
from services.gateway.approvals_ui.decisions import cannot_decide_reason, find_request, record_decision
from services.gateway.approvals_ui.rendering import STYLESHEET, render_page
from services.gateway.approvals_ui.sessions import Session
from services.gateway.approvals_ui.users import ApprovalsContext, SignedInUser, sign_in_with_password
from services.gateway.approvals_ui.views import decision_chain_problem, list_requests, request_view, review_attachments
from services.gateway.approvals_ui.web import RequestError, UiRequest, UiResponse, add_route, redirect

SESSION_COOKIE, PRE_SESSION_COOKIE = "ratchet-session", "ratchet-before"
"""Cookies: of who has signed in, and of a browser before somebody does."""

_OWN_PATHS = re.compile(r"/approvals(/[A-Za-z0-9._-]{1,200})?")


class Pages:
    """Handlers for browsers."""

    def __init__(self, desk: ApprovalsContext) -> None:
        self._desk = desk

    def mount(self, router: APIRouter, pool: ThreadPoolExecutor) -> None:
        """Add the paths."""
        add_route(router, pool, "GET", "/", lambda _: redirect("/approvals"), self.error_page)
        add_route(router, pool, "GET", "/desk/style.css", lambda _: STYLESHEET, self.error_page)
        add_route(router, pool, "GET", "/sign-in", self.sign_in_page, self.error_page)
        add_route(router, pool, "POST", "/sign-in", self.sign_in, self.error_page)
        add_route(router, pool, "POST", "/sign-out", self.sign_out, self.error_page)
        add_route(router, pool, "POST", "/token", self.token, self.error_page)
        add_route(router, pool, "GET", "/approvals", self.requests_page, self.error_page)
        add_route(router, pool, "GET", "/approvals/{name}", self.request_page, self.error_page)
        add_route(router, pool, "POST", "/approvals/{name}", self.decide, self.error_page)
        add_route(router, pool, "GET", "/approvals/{name}/plot.png", self.plot, self.error_page)

    def sign_in_page(self, call: UiRequest) -> UiResponse:
        """Show the form; whoever has signed in already goes on."""
        if self._session(call) is not None:
            return redirect(own_path(call.query.get("next", "")))
        return self.sign_in_form(call, 200, "", own_path(call.query.get("next", "")))

    def sign_in(self, call: UiRequest) -> UiResponse:
        """Begin a session for a name and a password."""
        desk, form = self._desk, call.form()
        before = call.cookies.get(self.cookie_name(PRE_SESSION_COOKIE), "")
        if not before or not desk.sessions.is_form_token(_pre_session_key(before), form.get("token", "")):
            return self.sign_in_form(call, 403, "This form is out of date. Try again.", own_path(form.get("next", "")))
        try:
            account = sign_in_with_password(desk, form.get("name", ""), form.get("password", ""), call.client_address)
        except RequestError as denied:
            return self.sign_in_form(call, denied.status, denied.message, own_path(form.get("next", "")))
        return self.start_session(call, account.name, "password", (), own_path(form.get("next", "")))

    def start_session(
        self, call: UiRequest, name: str, via: str, groups: tuple[str, ...], wanted: str, *, via_page: bool = False
    ) -> UiResponse:
        """Begin a session, end the one of before, and go on to what was wanted.

        `via_page`: by a page of ours. A redirect that began elsewhere would not bring the strict cookie along.
        """
        desk, before = self._desk, self._session(call)
        if before is not None:
            desk.sessions.end(before.key)
        rules = desk.current_environment().gateway
        token, _ = desk.sessions.start("page", name, via, groups, rules, desk.clock())
        kept = self.set_cookie(SESSION_COOKIE, token, int(rules.session_hours * 3600))
        reply = render_page(200, "onward.html", onward=own_path(wanted)) if via_page else redirect(own_path(wanted))
        return reply.with_cookies(kept, self.set_cookie(PRE_SESSION_COOKIE, "", 0))

    def sign_out(self, call: UiRequest) -> UiResponse:
        """End the session, here and in the browser."""
        session = self._session(call)
        if session is None:
            return redirect("/sign-in").with_cookies(self.set_cookie(SESSION_COOKIE, "", 0))
        self._check_form(session, call.form())
        self._desk.sessions.end(session.key)
        return redirect("/sign-in").with_cookies(self.set_cookie(SESSION_COOKIE, "", 0))

    def token(self, call: UiRequest) -> UiResponse:
        """Give a token for the API, shown once: also to people of an identity provider."""
        visitor, desk = self._user(call), self._desk
        self._check_form(visitor.session, call.form())
        session, rules = visitor.session, desk.current_environment().gateway
        given, ends = desk.sessions.start("api", session.name, session.sign_in_via, session.groups, rules, desk.clock())
        return self._signed_in_page(200, "token.html", visitor, given=given, ends=ends, idle=rules.idle_minutes)

    def requests_page(self, call: UiRequest) -> UiResponse:
        """Show what waits, and what is over."""
        visitor = self._user(call)
        waiting, over = list_requests(self._desk.current_environment(), self._desk.clock())
        return self._signed_in_page(200, "list.html", visitor, waiting=waiting, over=over)

    def request_page(self, call: UiRequest) -> UiResponse:
        """Show a request with its evidence."""
        return self._render_request(call.request_id, self._user(call))

    def plot(self, call: UiRequest) -> UiResponse:
        """Return the picture of a request's evaluation."""
        self._user(call)
        env = self._desk.current_environment()
        request = find_request(env, call.request_id)
        shown = request_view(env, request, (), self._desk.clock())
        if not (picture := review_attachments(env, request, shown.evidence).plot):
            raise RequestError(404, "There is no picture.")
        return UiResponse(200, picture, "image/png")

    def decide(self, call: UiRequest) -> UiResponse:
        """Record a decision, or show the request again and say why it does not count."""
        visitor, form = self._user(call), call.form()
        self._check_form(visitor.session, form)
        verdict, reason = form.get("verdict", ""), form.get("reason", "").strip()
        try:
            if verdict not in {"approve", "reject"}:
                raise RequestError(422, "Say whether you approve or reject.")
            if len(reason) < 3:
                raise RequestError(422, "Give a reason: it is recorded with your name.")
            record_decision(
                self._desk, visitor, call.request_id, approved=verdict == "approve", reason=reason,
                shown_digest=form.get("digest", ""), channel="approvals page",
            )  # fmt: skip
        except RequestError as denied:
            if denied.status in {404, 503}:
                raise
            return self._render_request(call.request_id, visitor, denied.status, denied.message, reason)
        return redirect(f"/approvals/{quote(call.request_id)}")

    def error_page(self, call: UiRequest, denied: RequestError) -> UiResponse:
        """Show why not, and nothing else; whoever has not signed in may do so."""
        if denied.status == 401:
            if call.headers.get("sec-fetch-site") == "cross-site" and call.method == "GET":
                return render_page(
                    401, "onward.html", onward=own_path(call.path)
                )  # a strict cookie comes with our own links
            return self.sign_in_form(
                call, 401, "Sign in to go on." if call.method == "POST" else "", own_path(call.path)
            )
        return render_page(denied.status, "message.html", said=denied.message)

    def sign_in_form(self, call: UiRequest, status: int, problem: str, wanted: str) -> UiResponse:
        """Show the sign-in form, bound to this browser by a cookie."""
        name, rules = self.cookie_name(PRE_SESSION_COOKIE), self._desk.current_environment().gateway
        before = call.cookies.get(name, "") or secrets.token_urlsafe(24)
        reply = render_page(
            status, "sign_in.html", problem=problem, wanted=wanted, passwords=rules.allow_passwords,
            provider=rules.oidc is not None, token=self._desk.sessions.form_token(_pre_session_key(before)),
        )  # fmt: skip
        return reply.with_cookies(self.set_cookie(PRE_SESSION_COOKIE, before, 3600))

    def cookie_name(self, name: str) -> str:
        """Return a cookie's name: where the address is https, browsers hold it to this host and to https."""
        return f"__Host-{name}" if self._secure else name

    def set_cookie(self, name: str, value: str, seconds: int, *, site: str = "Strict") -> str:
        """Return a cookie to set; for no seconds it goes."""
        secure = "; Secure" if self._secure else ""
        return f"{self.cookie_name(name)}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite={site}{secure}"

    @property
    def _secure(self) -> bool:
        return self._desk.current_environment().gateway.address.startswith("https://")

    def _session(self, call: UiRequest) -> Session | None:
        return self._desk.find_session("page", call.cookies.get(self.cookie_name(SESSION_COOKIE), ""))

    def _user(self, call: UiRequest) -> SignedInUser:
        return self._desk.require_user(self._session(call))

    def _check_form(self, session: Session, form: Mapping[str, str]) -> None:
        if not self._desk.sessions.is_form_token(session.key, form.get("token", "")):
            raise RequestError(
                403, "This form is not from this page, or out of date. Nothing was done: go back and try again."
            )

    def _render_request(
        self, name: str, visitor: SignedInUser, status: int = 200, problem: str = "", reason: str = ""
    ) -> UiResponse:
        env, now = self._desk.current_environment(), self._desk.clock()
        request = find_request(env, name)
        shown = request_view(env, request, env.approvals().links(request.id), now)
        return self._signed_in_page(
            status, "request.html", visitor, shown=shown, problem=problem, reason=reason,
            exhibits=review_attachments(env, request, shown.evidence),
            damage=decision_chain_problem(env), why_not=cannot_decide_reason(self._desk, visitor, request),
        )  # fmt: skip

    def _signed_in_page(self, status: int, template: str, visitor: SignedInUser, **values: Any) -> UiResponse:
        token = self._desk.sessions.form_token(visitor.session.key)
        return render_page(status, template, visitor=visitor, token=token, **values)


def own_path(path: str) -> str:
    """Return the path when it is one of the desk's pages, else the list's: nobody is sent elsewhere."""
    return path if _OWN_PATHS.fullmatch(path) else "/approvals"


def _pre_session_key(cookie: str) -> str:
    return "before " + text_digest(cookie, "surrogatepass")
