"""The commands of accounts: the gateway's operator creates them on a terminal, and a password is never an argument."""

import re
from pathlib import Path

import pytest

from services.gateway.approvals_ui.accounts import Accounts
from services.gateway.approvals_ui.store import open_store
from services.gateway.approvals_ui.tokens import Tokens
from tests.fixtures.command_line import ratchet
from tests.fixtures.office import WORDS
from tests.fixtures.trust_files import trust_local


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return trust_local(tmp_path, monkeypatch)


def said(*arguments: str, typed: str = "", code: int = 0) -> str:
    done = ratchet("accounts", *arguments, typed=typed)
    assert done.exit_code == code
    return done.stdout if code == 0 else done.stderr


def test_an_account_is_made_listed_and_disabled(state: Path) -> None:
    assert said("list") == "there are no accounts yet: nobody can sign in with a password\n"
    assert not state.exists(), "a list creates nothing"
    made = said("add", "max@example.com", "--role", "approver", typed=f"{WORDS}\nmore\n")
    assert made == "max@example.com may sign in, with approver\n"
    (account,) = Accounts(open_store(state)).list_all()
    assert (account.name, account.roles, account.disabled) == ("max@example.com", ("approver",), False)
    assert WORDS.encode() not in (state / "gateway" / "accounts.db").read_bytes()
    assert "approver" in said("list")
    assert "cannot sign in any more" in said("disable", "Max@example.com")
    assert "disabled" in said("list")


@pytest.mark.parametrize(
    ("arguments", "typed", "problem"),
    [
        (("add", "max", "--role", "king"), f"{WORDS}\n", r"no such role.*'king'.*approver, viewer"),
        (("add", "max"), f"{WORDS}\n", "needs a role"),
        (("add", "max", "--role", "viewer"), "short\n", "too short"),
        (("add", "max", "--role", "viewer"), "", "too short"),
        (("add", "", "--role", "viewer"), f"{WORDS}\n", "needs a name"),
        (("disable", "ghost"), "", "no such account"),
    ],
    ids=["role", "no role", "short", "nothing typed", "no name", "nobody"],
)
def test_what_is_wrong_is_said_and_nothing_is_made(
    state: Path,
    arguments: tuple[str, ...],
    typed: str,
    problem: str,
) -> None:
    shown = said(*arguments, typed=typed, code=2)
    assert re.search(problem, shown)
    assert WORDS not in shown
    assert Accounts(open_store(state)).list_all() == ()


def test_a_token_is_shown_once_listed_without_its_secret_and_revoked(state: Path) -> None:
    assert said("token", "list") == "there are no tokens\n"
    assert not state.exists(), "a list creates nothing"
    assert "no such account" in said("token", "add", "max@example.com", "--action", "rollback", code=2)
    said("add", "max@example.com", "--role", "approver", typed=f"{WORDS}\n")
    for wrong in (("--action", "decide"), ("--action", "start", "--days", "91"), ("--action", "start", "--days", "0")):
        assert re.search("known actions|1 to 90 days", said("token", "add", "max@example.com", *wrong, code=2))
    secret, about = said("token", "add", "max@example.com", "--action", "rollback").splitlines()
    (made,) = Tokens(open_store(state), Accounts(open_store(state))).list_all()
    assert (made.name, made.actions, made.id in about) == ("max@example.com", ("rollback",), True)
    assert secret.encode() not in (state / "gateway" / "accounts.db").read_bytes()
    assert secret not in said("token", "list")
    assert "not valid any more" in said("token", "revoke", made.id)
    assert "revoked" in said("token", "list")
    assert "no such token" in said("token", "revoke", "ghost", code=2)
