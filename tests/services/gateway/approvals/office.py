"""A desk as a browser and a program have it: the gateway's own application over a world in memory."""

import asyncio
import html
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from blocks.approvals.base import ApprovalRequest, Decision
from blocks.common.gateway import Gateway
from blocks.inbox.fake import FakeInbox
from deployments.secret_store import Vault
from services.gateway.app import application
from services.gateway.approvals.opening import open_desk, router_of, store_below
from services.gateway.approvals.passwords import Cost
from services.gateway.approvals.people import Desk
from tests.services.gateway.hooks import VARIABLES, triggers
from tests.tasks.approval.test_requests import evidence, request_over
from tests.tasks.shared.test_champion import NOW, World

WORDS = "correct horse battery staple"
HERE = "http://gateway.test"
CHEAP = Cost(n=16, r=1, p=1)
"""Hundreds of sign-ins in a test need not cost what each costs whoever guesses."""


class Door(httpx.BaseTransport):
    """Asks an application in this process, from an address."""

    def __init__(self, app: FastAPI, host: str) -> None:
        self._inner = httpx.ASGITransport(app, client=(host, 50_000))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Ask, and return the answer with its body read."""

        async def ask() -> httpx.Response:
            content = request.read()
            asked = httpx.Request(request.method, request.url, headers=request.headers, content=content)
            answer = await self._inner.handle_async_request(asked)
            return httpx.Response(answer.status_code, headers=answer.headers, content=await answer.aread())

        return asyncio.run(ask())


@dataclass
class Office:
    """A desk, its world, and clients for it. Time stands where `now` says."""

    world: World
    desk: Desk
    woken: list[str]
    times: dict[str, datetime]
    app: FastAPI = field(init=False)
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.app = application(FakeInbox(), triggers(), Vault(VARIABLES), desk=router_of(self.desk))
        self.client = self.another()

    @classmethod
    def at(cls, folder: Path, world: World | None = None, **rules: Any) -> "Office":
        """Open a desk with its file below the folder; `rules` are those of [gateway]."""
        world, woken, times = world or World.at(folder), list[str](), {"now": NOW}
        world.gateway = Gateway(**rules)
        desk = open_desk(lambda: world, store_below(folder), lambda: woken.append("woken"), Vault(VARIABLES), CHEAP)
        return cls(world, replace(desk, clock=lambda: times["now"]), woken, times)

    def pass_time(self, **delta: float) -> None:
        """Let time go by."""
        self.times["now"] += timedelta(**delta)

    def another(self, host: str = "10.0.0.1") -> httpx.Client:
        """Return a browser of its own."""
        address = self.world.gateway.address or HERE
        return httpx.Client(transport=Door(self.app, host), base_url=address)

    def ask(self, **changes: Any) -> ApprovalRequest:
        """Put a request into the ledger."""
        return self.world.approvals().request_approval(request_over(evidence(), **changes))

    def account(self, name: str = "max@example.com", *roles: str) -> str:
        """Make an account."""
        return self.desk.accounts.add(name, WORDS, roles or ("approver",), self.times["now"]).name

    def signed_in(self, name: str = "max@example.com", *roles: str) -> httpx.Client:
        """Return a browser in which that person has signed in, with a new account."""
        self.account(name, *roles)
        client = self.another()
        assert sign_in(client, name).status_code == 303
        return client

    def token(self, name: str = "max@example.com", *roles: str) -> dict[str, str]:
        """Return the header with which a program of that person calls the API."""
        self.account(name, *roles)
        answer = self.client.post("/api/sign-in", json={"name": name, "password": WORDS})
        assert answer.status_code == 200, answer.text
        return {"authorization": f"Bearer {answer.json()['token']}"}

    def decisions(self) -> list[Decision]:
        """Return what is in the ledger."""
        approvals = self.world.approvals()
        found = [approvals.decision(link.request_id) for link in approvals.links() if link.kind == "decision"]
        return [each for each in found if each]

    def refused(self) -> list[str]:
        """Return the bodies of refused attempts in the ledger."""
        return [link.body for link in self.world.approvals().links() if link.kind == "refusal"]


def sign_in(client: httpx.Client, name: str, password: str = WORDS, **fields: str) -> httpx.Response:
    """Fill in the form and send it."""
    page = client.get("/sign-in")
    return client.post("/sign-in", data={**hidden(page), "name": name, "password": password, **fields})


def decide(client: httpx.Client, request_id: str, verdict: str = "approve", **fields: str) -> httpx.Response:
    """Open a request, fill in the form and send it."""
    page = client.get(f"/approvals/{request_id}")
    assert page.status_code == 200, page.text
    said = {**hidden(page, f"/approvals/{request_id}"), "verdict": verdict, "reason": "it is better", **fields}
    return client.post(f"/approvals/{request_id}", data=said)


def hidden(page: httpx.Response, action: str = "/sign-in") -> Mapping[str, str]:
    """Return the hidden fields of the form that is sent to `action`."""
    form = re.search(rf'<form method="post" action="{re.escape(action)}".*?</form>', page.text, re.DOTALL)
    fields = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form[0] if form else "")
    return {name: html.unescape(value) for name, value in fields}
