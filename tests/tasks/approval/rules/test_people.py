"""People: all names of a person count as one person, with the roles of the configuration."""

from dataclasses import dataclass

import pytest

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
}
OTHER = {"two people": ("bob", "bobby"), "another mailbox": ("cid@x.org", "cid@y.org"), "nobody": ("", "")}


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
