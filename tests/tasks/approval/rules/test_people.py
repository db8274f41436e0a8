"""People: all names of a person count as one person, with the roles of the configuration."""

import unicodedata
from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.records.identity import exact_names, is_identified, normalized_name, similar_names
from tasks.approval.rules.people import People
from tasks.approval.rules.policy import ApprovalRequirements, stricter_requirements


@dataclass(frozen=True)
class Known:
    aliases: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    revoked: bool = False


PEOPLE = People({"ann@example.com": Known(("Ann Lee", "alee"), ("risk",)), "bob": Known((), ("risk", "product"))})

SAME = {
    "capitals": ("Bob", "bOB "),
    "name and mailbox": ("Cid Poe <cid@x.org>", "cid@x.org"),
    "mailbox and name": ("cid poe", "Cid  Poe <cid@x.org>"),
    "a tag": ("cid+ci@x.org", "Cid <CID@x.org>"),
    "by the configuration": ("ALEE", "Ann Lee <other@x.org>"),
    "invisible letters": ("b\u200bob", "bob"),
    "last name first": ("Lee, Ann", "alee"),
    "a comment": ("Bob (of the risk team)", "bob"),
    "accents": ("Bób", "bob"),
    "an address and a name": ("ann.lee@home.example", "alee"),
    "punycode": ("cid@bücher.example", "cid@xn--bcher-kva.example"),
    "a private address": ("7+alee@users.noreply.github.com", "ann@example.com"),
    "an account of a machine": ("alee@laptop.local", "ann@example.com"),
    "a bot": ("build[bot]", "build[bot] <7+build[bot]@users.noreply.github.com>"),
}
OTHER = {
    "two people": ("bob", "bobby"),
    "another mailbox": ("cid@x.org", "cid@y.org"),
    "nobody": ("", ""),
    "nobody twice": ("root@localhost", "nobody@localhost"),
    "a shared address": ("Cid <noreply@github.com>", "Dan <noreply@github.com>"),
    "two private addresses": ("7+cid@users.noreply.github.com", "8+dan@users.noreply.github.com"),
    "a comment in common": ("Cid (contractor)", "Dan (contractor)"),
}


@pytest.mark.parametrize(("one", "other"), SAME.values(), ids=SAME)
def test_two_names_of_one_person(one: str, other: str) -> None:
    assert PEOPLE.is_same_person(one, other) and PEOPLE.is_same_person(other, one)


@pytest.mark.parametrize(("one", "other"), OTHER.values(), ids=OTHER)
def test_names_of_two_people(one: str, other: str) -> None:
    assert not PEOPLE.is_same_person(one, other)


def test_roles_are_those_of_the_person_under_any_name() -> None:
    assert PEOPLE.roles_of("Ann Lee <ann+work@example.com>") == {"risk"}
    assert PEOPLE.roles_of("bob") == {"risk", "product"}
    assert PEOPLE.roles_of("stranger") == frozenset()


def test_the_stricter_of_two_policies_counts() -> None:
    model = ApprovalRequirements(approvals=2, approvers=("ann",), roles=("risk",), four_eyes=False, expires_days=7)
    server = ApprovalRequirements(
        approvals=1, approvers=("bob",), four_eyes=True, expires_days=30, require_authentication=True
    )
    assert stricter_requirements(model, server) == ApprovalRequirements(2, ("risk",), ("bob",), True, 7, True)
    assert stricter_requirements(model, ApprovalRequirements(four_eyes=False, expires_days=365)) == model


def test_who_is_revoked_is_so_under_each_of_their_names() -> None:
    people = People({"ann@example.com": Known(("Ann Lee",), ("risk",), revoked=True), "bob": Known()})
    assert people.is_revoked("ANN lee")
    assert people.is_revoked("ann+x@example.com")
    assert not people.is_revoked("bob")
    assert not people.is_revoked("eve")


def test_what_grants_is_the_same_name_or_mailbox_and_nothing_alike() -> None:
    assert PEOPLE.is_named("ＢＯＢ", "bob") and PEOPLE.is_named("Ann <ann+x@example.com>", "alee")
    for other in (
        "Bób",
        "Воb",
        "Bob <eve@example.com>",
        "eve@x.org, ann@example.com",
        "7+alee@users.noreply.github.com",
    ):
        assert not PEOPLE.roles_of(other), other
        assert not PEOPLE.is_named(other, "bob") and not PEOPLE.is_named(other, "ann@example.com")


NAMES = st.text(st.characters(categories=["Lu", "Ll", "Nd"]), min_size=2, max_size=12)
INVISIBLE = st.sampled_from([*"\u00ad\u034f\u115f\u1160\u17b4\u180b\u200b\u200d\u202e\u2060\u2800\u3164\ufe0f\ufeff\uffa0",
                             "\U000e0020", "\U000e0101", "\x00", "\ue000"])  # fmt: skip


@given(NAMES, INVISIBLE, st.integers(0, 12), st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
def test_invisible_letters_case_width_and_normalization_make_no_other_person(
    name: str, hidden: str, place: int, form: Literal["NFC", "NFD", "NFKC", "NFKD"]
) -> None:
    wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in name)
    people = People({name: Known((), ("risk",))})
    for other in (
        name[:place] + hidden + name[place:], name.casefold(), unicodedata.normalize(form, name), wide, f" {name}\t",
        f"{name} (x)", f'"{name}"', f"{name}.",
    ):  # fmt: skip
        assert people.is_same_person(name, other) and people.roles_of(other) == {"risk"}


@given(st.text(max_size=200))
def test_any_text_is_compared_without_an_error_and_with_itself(name: str) -> None:
    people = People({"max@example.com": Known((name,))})
    assert people.is_same_person(name, name) == bool(normalized_name(name) or similar_names(name))
    assert people.is_named(name, "max@example.com") or not exact_names(name)
    assert not is_identified(name) or similar_names(name)


def test_a_name_as_long_as_git_allows_takes_no_time() -> None:
    assert similar_names("a" * 1_000_000 + "(" * 100_000) == {"a" * 1000}
