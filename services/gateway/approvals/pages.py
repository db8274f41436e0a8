"""The pages of the desk: sign in, what waits, one request with its evidence, decide, sign out."""

import re
import secrets
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter

from runtime.digests import text_digest
from services.gateway.approvals.deciding import request_of, settle, why_not
from services.gateway.approvals.people import Desk, Visitor, by_password
from services.gateway.approvals.rendering import STYLE, rendered
from services.gateway.approvals.sessions import Session
from services.gateway.approvals.views import damage, exhibits_of, listed, show
from services.gateway.approvals.web import Call, Denied, Reply, add, see

SESSION, BEFORE = "ratchet-session", "ratchet-before"
"""Cookies: of who has signed in, and of a browser before somebody does."""

_OURS = re.compile(r"/approvals(/[A-Za-z0-9._-]{1,200})?")


class Pages:
    """Handlers for browsers."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def mount(self, router: APIRouter, pool: ThreadPoolExecutor) -> None:
        """Add the paths."""
        add(router, pool, "GET", "/", lambda _: see("/approvals"), self.refuse)
        add(router, pool, "GET", "/desk/style.css", lambda _: STYLE, self.refuse)
        add(router, pool, "GET", "/sign-in", self.sign_in_page, self.refuse)
        add(router, pool, "POST", "/sign-in", self.sign_in, self.refuse)
        add(router, pool, "POST", "/sign-out", self.sign_out, self.refuse)
        add(router, pool, "POST", "/token", self.token, self.refuse)
        add(router, pool, "GET", "/approvals", self.list, self.refuse)
        add(router, pool, "GET", "/approvals/{name}", self.one, self.refuse)
        add(router, pool, "POST", "/approvals/{name}", self.decide, self.refuse)
        add(router, pool, "GET", "/approvals/{name}/plot.png", self.plot, self.refuse)

    def sign_in_page(self, call: Call) -> Reply:
        """Show the form; whoever has signed in already goes on."""
        if self._session(call) is not None:
            return see(ours(call.query.get("next", "")))
        return self.form(call, 200, "", ours(call.query.get("next", "")))

    def sign_in(self, call: Call) -> Reply:
        """Begin a session for a name and a password."""
        desk, form = self._desk, call.form()
        before = call.cookies.get(self.cookie(BEFORE), "")
        if not before or not desk.sessions.is_form_token(_before(before), form.get("token", "")):
            return self.form(call, 403, "This form is out of date. Try again.", ours(form.get("next", "")))
        try:
            account = by_password(desk, form.get("name", ""), form.get("password", ""), call.address)
        except Denied as denied:
            return self.form(call, denied.status, denied.said, ours(form.get("next", "")))
        return self.begin(call, account.name, "password", (), ours(form.get("next", "")))

    def begin(
        self, call: Call, name: str, via: str, groups: tuple[str, ...], wanted: str, *, onward: bool = False
    ) -> Reply:
        """Begin a session, end the one of before, and go on to what was wanted.

        `onward`: by a page of ours. A redirect that began elsewhere would not bring the strict cookie along.
        """
        desk, before = self._desk, self._session(call)
        if before is not None:
            desk.sessions.end(before.key)
        rules = desk.world().gateway
        token, _ = desk.sessions.open("page", name, via, groups, rules, desk.clock())
        kept = self.set_cookie(SESSION, token, int(rules.session_hours * 3600))
        reply = rendered(200, "onward.html", onward=ours(wanted)) if onward else see(ours(wanted))
        return reply.with_cookies(kept, self.set_cookie(BEFORE, "", 0))

    def sign_out(self, call: Call) -> Reply:
        """End the session, here and in the browser."""
        session = self._session(call)
        if session is None:
            return see("/sign-in").with_cookies(self.set_cookie(SESSION, "", 0))
        self._check_form(session, call.form())
        self._desk.sessions.end(session.key)
        return see("/sign-in").with_cookies(self.set_cookie(SESSION, "", 0))

    def token(self, call: Call) -> Reply:
        """Give a token for the API, shown once: also to people of an identity provider."""
        visitor, desk = self._visitor(call), self._desk
        self._check_form(visitor.session, call.form())
        session, rules = visitor.session, desk.world().gateway
        given, ends = desk.sessions.open("api", session.name, session.via, session.groups, rules, desk.clock())
        return self._page(200, "token.html", visitor, given=given, ends=ends, idle=rules.idle_minutes)

    def list(self, call: Call) -> Reply:
        """Show what waits, and what is over."""
        visitor = self._visitor(call)
        waiting, over = listed(self._desk.world(), self._desk.clock())
        return self._page(200, "list.html", visitor, waiting=waiting, over=over)

    def one(self, call: Call) -> Reply:
        """Show a request with its evidence."""
        return self._request(call.name, self._visitor(call))

    def plot(self, call: Call) -> Reply:
        """Return the picture of a request's evaluation."""
        self._visitor(call)
        world = self._desk.world()
        request = request_of(world, call.name)
        shown = show(world, request, (), self._desk.clock())
        if not (picture := exhibits_of(world, request, shown.evidence).plot):
            raise Denied(404, "There is no picture.")
        return Reply(200, picture, "image/png")

    def decide(self, call: Call) -> Reply:
        """Record a decision, or show the request again and say why it does not count."""
        visitor, form = self._visitor(call), call.form()
        self._check_form(visitor.session, form)
        verdict, reason = form.get("verdict", ""), form.get("reason", "").strip()
        try:
            if verdict not in {"approve", "reject"}:
                raise Denied(422, "Say whether you approve or reject.")
            if len(reason) < 3:
                raise Denied(422, "Give a reason: it is recorded with your name.")
            settle(
                self._desk, visitor, call.name, approved=verdict == "approve", reason=reason,
                digest=form.get("digest", ""), by="approvals page",
            )  # fmt: skip
        except Denied as denied:
            if denied.status in {404, 503}:
                raise
            return self._request(call.name, visitor, denied.status, denied.said, reason)
        return see(f"/approvals/{quote(call.name)}")

    def refuse(self, call: Call, denied: Denied) -> Reply:
        """Show why not, and nothing else; whoever has not signed in may do so."""
        if denied.status == 401:
            if call.headers.get("sec-fetch-site") == "cross-site" and call.method == "GET":
                return rendered(401, "onward.html", onward=ours(call.path))  # a strict cookie comes with our own links
            return self.form(call, 401, "Sign in to go on." if call.method == "POST" else "", ours(call.path))
        return rendered(denied.status, "message.html", said=denied.said)

    def form(self, call: Call, status: int, problem: str, wanted: str) -> Reply:
        """Show the sign-in form, bound to this browser by a cookie."""
        name, rules = self.cookie(BEFORE), self._desk.world().gateway
        before = call.cookies.get(name, "") or secrets.token_urlsafe(24)
        reply = rendered(
            status, "sign_in.html", problem=problem, wanted=wanted, passwords=rules.passwords,
            provider=rules.oidc is not None, token=self._desk.sessions.form_token(_before(before)),
        )  # fmt: skip
        return reply.with_cookies(self.set_cookie(BEFORE, before, 3600))

    def cookie(self, name: str) -> str:
        """Return a cookie's name: where the address is https, browsers hold it to this host and to https."""
        return f"__Host-{name}" if self._secure else name

    def set_cookie(self, name: str, value: str, seconds: int, *, site: str = "Strict") -> str:
        """Return a cookie to set; for no seconds it goes."""
        secure = "; Secure" if self._secure else ""
        return f"{self.cookie(name)}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite={site}{secure}"

    @property
    def _secure(self) -> bool:
        return self._desk.world().gateway.address.startswith("https://")

    def _session(self, call: Call) -> Session | None:
        return self._desk.session("page", call.cookies.get(self.cookie(SESSION), ""))

    def _visitor(self, call: Call) -> Visitor:
        return self._desk.visitor(self._session(call))

    def _check_form(self, session: Session, form: Mapping[str, str]) -> None:
        if not self._desk.sessions.is_form_token(session.key, form.get("token", "")):
            raise Denied(
                403, "This form is not from this page, or out of date. Nothing was done: go back and try again."
            )

    def _request(self, name: str, visitor: Visitor, status: int = 200, problem: str = "", reason: str = "") -> Reply:
        world, now = self._desk.world(), self._desk.clock()
        request = request_of(world, name)
        shown = show(world, request, world.approvals().links(request.id), now)
        return self._page(
            status, "request.html", visitor, shown=shown, problem=problem, reason=reason,
            exhibits=exhibits_of(world, request, shown.evidence),
            damage=damage(world), why_not=why_not(self._desk, visitor, request),
        )  # fmt: skip

    def _page(self, status: int, template: str, visitor: Visitor, **values: Any) -> Reply:
        token = self._desk.sessions.form_token(visitor.session.key)
        return rendered(status, template, visitor=visitor, token=token, **values)


def ours(path: str) -> str:
    """Return the path when it is one of the desk's pages, else the list's: nobody is sent elsewhere."""
    return path if _OURS.fullmatch(path) else "/approvals"


def _before(cookie: str) -> str:
    return "before " + text_digest(cookie, "surrogatepass")
