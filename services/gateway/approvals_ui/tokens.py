"""Personal tokens: a program acts in the name of a person, with the actions that the token allows and no decision.

A token is random and stored as its SHA-256. It ends at a time, when it is revoked, and with the person's account. The
roles of an account are its current ones; those of an identity provider are of the time when the token was made.
"""

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import get_args

from blocks.common.gateway_settings import GatewaySettings
from blocks.records.actions import Action
from blocks.records.identity import normalized_name
from runtime.digests import text_digest
from services.gateway.approvals_ui.accounts import Accounts
from services.gateway.approvals_ui.sessions import Session, current_groups
from services.gateway.approvals_ui.store import ApprovalsStore
from tasks.shared.rules.refusal import Refusal

TOKEN_PREFIX = "ratchet_"  # noqa: S105  (it marks a token, so that scanners of secrets find one)
MAX_DAYS = 90
ACTIONS: tuple[Action, ...] = get_args(Action)

_TABLE = """
CREATE TABLE IF NOT EXISTS action_tokens (
    digest TEXT PRIMARY KEY, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, via TEXT NOT NULL, groups_ TEXT NOT NULL,
    actions TEXT NOT NULL, made_at REAL NOT NULL, ends_at REAL NOT NULL, revoked INTEGER NOT NULL)
"""


@dataclass(frozen=True)
class PersonalToken:
    """A token without its secret: whose it is, the actions that it allows, and until when."""

    id: str
    name: str
    actions: tuple[str, ...]
    ends_at: datetime
    revoked: bool


class Tokens:
    """The personal tokens of one gateway."""

    def __init__(self, store: ApprovalsStore, accounts: Accounts) -> None:
        self._store, self._accounts = store, accounts
        store.write((_TABLE, ()))

    def add(
        self, name: str, via: str, groups: Sequence[str], actions: Sequence[str], days: int, now: datetime
    ) -> tuple[str, PersonalToken]:
        """Create a token for a person who signs in `via` "password" or an issuer. Return it, and what is stored.

        Raises:
            Refusal: there is no action, an unknown one, or the days are not 1 to 90.
        """
        if unknown := [each for each in actions if each not in ACTIONS] or ([] if actions else [""]):
            remedy = f"Actions: {', '.join(ACTIONS)}."
            raise Refusal("a token is for known actions", where="token", value=unknown[0], remedy=remedy)
        if not 1 <= days <= MAX_DAYS:
            raise Refusal(f"a token is valid for 1 to {MAX_DAYS} days", where="token", value=days)
        secret, token_id = TOKEN_PREFIX + secrets.token_urlsafe(32), secrets.token_hex(4)
        ends = now + timedelta(days=days)
        made = PersonalToken(token_id, name, tuple(sorted(set(actions))), ends, revoked=False)
        row = (text_digest(secret), token_id, name, via, json.dumps(list(groups)), json.dumps(made.actions))
        times = (now.timestamp(), ends.timestamp())
        self._store.write(("INSERT INTO action_tokens VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0)", (*row, *times)))
        return secret, made

    def find(self, secret: str, rules: GatewaySettings, now: datetime) -> tuple[Session, tuple[str, ...]] | None:
        """Return the person of a token as a session, and the allowed actions; None when the token is not valid."""
        query = "SELECT * FROM action_tokens WHERE digest = ? AND revoked = 0 AND made_at - 300 <= ? AND ends_at > ?"
        at = now.timestamp()
        rows = self._store.rows(query, (text_digest(secret, "surrogatepass"), at, at))
        if not rows:
            return None
        row = rows[0]
        if (groups := current_groups(row, self._accounts, rules)) is None:
            return None
        return Session(row["digest"], row["name"], row["via"], groups), tuple(json.loads(row["actions"]))

    def list_all(self, name: str = "") -> tuple[PersonalToken, ...]:
        """Return the tokens of a person, or all of them, oldest first; also those that ended."""
        rows = self._store.rows("SELECT * FROM action_tokens ORDER BY made_at")
        found = (
            PersonalToken(
                row["id"], row["name"], tuple(json.loads(row["actions"])),
                datetime.fromtimestamp(row["ends_at"]).astimezone(), bool(row["revoked"]),
            )
            for row in rows
        )  # fmt: skip
        return tuple(each for each in found if not name or normalized_name(each.name) == normalized_name(name))

    def revoke(self, token_id: str, name: str = "") -> None:
        """End a token; with `name` only one of that person. Raises Refusal when there is none with that id."""
        if token_id not in {each.id for each in self.list_all(name)}:
            raise Refusal("there is no such token", where="token", value=token_id[:80])
        self._store.write(("UPDATE action_tokens SET revoked = 1 WHERE id = ?", (token_id,)))
