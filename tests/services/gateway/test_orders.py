"""Orders of the gateway: a push that the host signed starts its run in the pusher's name, and nothing else does."""

from pathlib import Path

import pytest

from blocks.common.trust import ApprovalSettings
from blocks.inbox.base import Delivery
from blocks.records.actions import ActionSettings, RunPolicy
from services.gateway.dispatch import MissedPush, ingest_missed_push
from services.gateway.orders import is_sealed, seal_delivery, start_ordered_run
from tasks.approval.rules.actions import Actor
from tasks.shared.rules.refusal import Refusal
from tests.fakes.environment import NOW
from tests.fixtures.gateway import Gateway
from tests.fixtures.hooks import C2, GENUINE, triggers
from tests.fixtures.ordering_gateway import PUSHER, OrderingGateway


@pytest.fixture
def gateway(tmp_path: Path) -> OrderingGateway:
    return OrderingGateway(tmp_path)


def test_a_push_that_the_host_signed_starts_its_run_in_the_name_of_the_pusher(gateway: OrderingGateway) -> None:
    gateway.push()
    assert gateway.dispatcher.run_once() == 1
    (spec,) = gateway.starter.specs.values()
    actor = gateway.use(spec.parameters)
    assert (actor.by, actor.authenticated) == (PUSHER, True)
    (order,) = gateway.orders()
    assert (order.channel, order.reason) == ("webhook github", f"push to main of acme/models at {C2}")
    with pytest.raises(Refusal, match="not the one that was ordered"):
        gateway.use({**spec.parameters, "tier": "full"})


def test_a_delivery_that_a_person_processes_again_or_adds_proves_nobody(gateway: OrderingGateway) -> None:
    gateway.push()
    gateway.dispatcher.run_once()
    gateway.inbox.request_reprocessing("github:d-1", "eve", NOW)
    gateway.dispatcher.run_once()
    assert gateway.inbox.delivery_status("github:d-1").outcome.state == "refused"  # type: ignore[union-attr]
    repository = triggers().repositories[0]
    missed = MissedPush(repository, "main", "d" * 40, "")
    ingest_missed_push(gateway.inbox, missed, PUSHER, NOW)
    assert [order.by for order in gateway.orders()] == [PUSHER]
    gateway.env.approval = ApprovalSettings()
    gateway.inbox.request_reprocessing("github:d-1", "eve", NOW)
    gateway.dispatcher.run_once()
    assert [(order.by, order.authenticated) for order in gateway.orders()] == [(PUSHER, True), ("eve", False)]


def test_a_pusher_whom_the_policy_excludes_starts_nothing(gateway: OrderingGateway) -> None:
    gateway.env.actions = ActionSettings(start=RunPolicy(excluded=(PUSHER,)))
    gateway.push()
    gateway.dispatcher.run_once()
    outcome = gateway.inbox.delivery_status("github:d-1").outcome
    assert outcome is not None
    assert (outcome.state, gateway.starter.calls) == ("refused", 0)
    assert "may not do this" in outcome.reason


def test_retries_while_prefect_is_away_sign_one_order(tmp_path: Path) -> None:
    gateway = OrderingGateway(tmp_path, unavailable_calls=3)
    gateway.push()
    for wait in (1, 2, 4, 8):
        gateway.dispatcher.run_once()
        gateway.clock.sleep(wait)
    assert (len(gateway.starter.specs), len(gateway.orders())) == (1, 1)


def test_a_gateway_without_the_key_signs_nothing_and_the_run_is_refused(gateway: OrderingGateway) -> None:
    gateway.env.approval = ApprovalSettings()
    gateway.env.signing = gateway.env.signing.model_copy(update={"decisions_key": ""})
    gateway.push()
    gateway.dispatcher.run_once()
    (spec,) = gateway.starter.specs.values()
    assert "order" not in spec.parameters
    gateway.env.approval = ApprovalSettings(require_authentication=True)
    with pytest.raises(Refusal, match="not authenticated"):
        gateway.use(spec.parameters)


def test_the_order_that_a_caller_names_is_not_used(gateway: OrderingGateway) -> None:
    gateway.env.approval = ApprovalSettings()
    gateway.env.signing = gateway.env.signing.model_copy(update={"decisions_key": ""})
    given, eve = {"model": "churn", "order": "of ada"}, Actor("eve@x.org", authenticated=True)
    start_ordered_run(
        gateway.env, gateway.starter, "retrain/retrain", given, eve, reason="the data", channel="api", now=NOW
    )
    (spec,) = gateway.starter.specs.values()
    assert "order" not in spec.parameters


def test_the_gateway_seals_what_it_verified_and_nothing_without_its_key(gateway: OrderingGateway) -> None:
    def seal(delivery: Delivery) -> Delivery:
        return seal_delivery(gateway.env, delivery, triggers().senders["github"].secrets)

    def sealed(name: str) -> bool:
        receiving.send(GENUINE["github"](name))
        return is_sealed(gateway.env, receiving.inbox.delivery_status(f"github:{name}").turn.delivery)

    receiving = Gateway(seal=seal)
    assert sealed("d-1")
    receiving = Gateway(seal=seal)
    gateway.env.signing = gateway.env.signing.model_copy(update={"decisions_key": ""})
    assert not sealed("d-1")
