"""Deliveries that no host signed, or whose host does not say who pushed: their runs belong to nobody."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from blocks.common.trust import ApprovalSettings
from blocks.inbox.base import Delivery, ProcessingOutcome
from blocks.records.people import Person
from runtime.keys import create_key
from services.gateway.orders import seal_delivery
from services.gateway.rules.changes import change_from_json
from tests.fakes.environment import NOW, World
from tests.fixtures.hooks import bitbucket_push, push
from tests.fixtures.ordering_gateway import OrderingGateway


@pytest.fixture
def gateway(tmp_path: Path) -> OrderingGateway:
    gateway = OrderingGateway(tmp_path)
    gateway.env.approval = ApprovalSettings()
    return gateway


def with_victim(given: Delivery) -> Delivery:
    change = replace(change_from_json(given.change), author="victim <victim@acme.example>")
    return replace(given, change=change.text())


def sealed_by_another_key(given: Delivery, folder: Path) -> Delivery:
    create_key(folder / "own.pem", "ed25519")
    env = World.at(folder)
    env.signing = env.signing.model_copy(update={"decisions_key": str(folder / "own.pem"), "decisions_head_file": ""})
    return seal_delivery(env, given, ())


FORGERIES: dict[str, Callable[[Delivery, Path], Delivery]] = {
    "an inserted row": lambda given, _: replace(with_victim(given), seal=""),
    "another pusher under a real seal": lambda given, _: with_victim(given),
    "the seal of another delivery": lambda given, _: given,
    "another event": lambda given, _: replace(given, event="pull_request"),
    "a seal of another key": lambda given, folder: sealed_by_another_key(given, folder / "own"),
    "no signature at all": lambda given, _: replace(given, seal="ada"),
    "not ASCII": lambda given, _: replace(given, seal="é:é"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_delivery_that_somebody_wrote_into_the_database_proves_nobody(
    gateway: OrderingGateway, tmp_path: Path, forgery: str
) -> None:
    real = gateway.sealed_push()
    gateway.inbox.receive(FORGERIES[forgery](replace(real, id="github:forged", digest="e" * 64), tmp_path))
    gateway.dispatcher.run_once()
    assert [order.authenticated for order in gateway.orders()] == [True, False]


def test_a_turn_that_is_opened_again_long_after_the_push_proves_nobody(gateway: OrderingGateway) -> None:
    old = replace(gateway.sealed_push(), id="github:d-2", digest="e" * 64, received_at=NOW - timedelta(days=2))
    gateway.inbox.receive(seal_delivery(gateway.env, old, ()))
    gateway.dispatcher.run_once()
    assert [order.authenticated for order in gateway.orders()] == [True, False]


def test_a_push_proves_nobody_where_a_prefect_block_holds_a_secret_of_the_sender(gateway: OrderingGateway) -> None:
    given = replace(gateway.sealed_push(), id="github:d-2", digest="e" * 64, seal="")
    gateway.inbox.receive(seal_delivery(gateway.env, given, ("env:HOOK", "block:hook")))
    gateway.dispatcher.run_once()
    assert [order.authenticated for order in gateway.orders()] == [True, False]


def test_a_push_of_an_account_that_tells_nobody_proves_nobody(gateway: OrderingGateway) -> None:
    gateway.push(body=push(pusher={"name": "", "email": "[REDACTED]"}))
    gateway.dispatcher.run_once()
    assert [(order.by, order.authenticated) for order in gateway.orders()] == [("unknown", False)]


def test_an_account_of_bitbucket_proves_only_who_is_declared_with_it(gateway: OrderingGateway) -> None:
    actor = {"account_id": "557058:c0b7", "nickname": "max@example.com"}
    gateway.push("bitbucket", "repo:push", bitbucket_push() | {"actor": actor})
    delivery = gateway.inbox.delivery_status("bitbucket:d-1").turn.delivery
    change = replace(change_from_json(delivery.change), paths=("models/churn/train.py",), paths_complete=True)
    given = replace(delivery, id="bitbucket:d-2", digest="e" * 64, change=change.text())
    gateway.inbox.finish_attempt(gateway.inbox.pending_attempts()[0], ProcessingOutcome("ignored", "no files"), NOW)
    for name, declared in (("d-2", False), ("d-3", True)):
        gateway.env.people = {"ada@acme.example": Person(aliases=("557058:c0b7",))} if declared else {}
        each = replace(given, id=f"bitbucket:{name}", digest=name.rjust(64))
        gateway.inbox.receive(seal_delivery(gateway.env, each, ()))
        gateway.dispatcher.run_once()
    assert [(order.by, order.authenticated) for order in gateway.orders()] == [
        ("557058:c0b7", False),
        ("557058:c0b7", True),
    ]
