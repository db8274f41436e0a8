"""Orders of the gateway: a push that the host signed starts its run in the pusher's name, and nothing else does."""

from pathlib import Path
from typing import Any

import pytest

from blocks.approvals.chain import record_from_entry
from blocks.common.trust import ApprovalSettings
from blocks.inbox.fake import FakeInbox
from blocks.records.actions import ActionOrder, ActionSettings, RunPolicy
from deployments.git import RepositoryCache
from deployments.secret_store import SecretStore
from services.gateway.dispatch import Dispatcher, MissedPush, ingest_missed_push
from services.gateway.fake import FakeRunStarter
from services.gateway.ingest import read_delivery
from services.gateway.orders import DeliveryOrders
from services.gateway.signatures import VerifiedDelivery
from tasks.approval.rules.actions import Act
from tasks.shared.actions import authorize
from tasks.shared.rules.refusal import Refusal
from tests.fakes.environment import NOW, World
from tests.fixtures.clocks import Clock
from tests.fixtures.hooks import C2, hook, push, triggers

PUSHER = "ada@acme.example"


class Gateway:
    """A gateway with the key of an environment that requires authentication."""

    def __init__(self, folder: Path, **knobs: Any) -> None:
        self.env, self.inbox, self.starter, self.clock = World.at(folder), FakeInbox(), FakeRunStarter(**knobs), Clock()
        self.env.approval = ApprovalSettings(require_authentication=True)
        self.dispatcher = Dispatcher(
            self.inbox, triggers(), self.starter, RepositoryCache(folder / "mirrors"), SecretStore({}), lambda: NOW,
            monotonic=self.clock, sign_order=DeliveryOrders(lambda: self.env, lambda: NOW),
        )  # fmt: skip

    def push(self) -> None:
        given = hook("github", "push", push())
        read: Any = read_delivery(triggers(), given.sender, given.raw, given.body, VerifiedDelivery(), NOW)
        self.inbox.receive_all([read])

    def orders(self) -> list[ActionOrder]:
        links = self.env.approvals().chain_entries()
        return [record for link in links if isinstance(record := record_from_entry(link), ActionOrder)]

    def use(self, parameters: Any) -> Any:
        given = {name: value for name, value in parameters.items() if name != "order"}
        act = Act("start", "local", "churn", "retrain", parameters=given)
        return authorize(self.env, act, order=parameters.get("order", ""), by=PUSHER, used_by="flow run 1", now=NOW)


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    return Gateway(tmp_path)


def test_a_push_that_the_host_signed_starts_its_run_in_the_name_of_the_pusher(gateway: Gateway) -> None:
    gateway.push()
    assert gateway.dispatcher.run_once() == 1
    (spec,) = gateway.starter.specs.values()
    actor = gateway.use(spec.parameters)
    assert (actor.by, actor.authenticated) == (PUSHER, True)
    (order,) = gateway.orders()
    assert (order.channel, order.reason) == ("webhook github", f"push to main of acme/models at {C2}")
    with pytest.raises(Refusal, match="not the one that was ordered"):
        gateway.use({**spec.parameters, "tier": "full"})


def test_a_delivery_that_a_person_processes_again_or_adds_proves_nobody(gateway: Gateway) -> None:
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


def test_a_pusher_whom_the_policy_excludes_starts_nothing(gateway: Gateway) -> None:
    gateway.env.actions = ActionSettings(start=RunPolicy(excluded=(PUSHER,)))
    gateway.push()
    gateway.dispatcher.run_once()
    outcome = gateway.inbox.delivery_status("github:d-1").outcome
    assert outcome is not None
    assert (outcome.state, gateway.starter.calls) == ("refused", 0)
    assert "may not do this" in outcome.reason


def test_retries_while_prefect_is_away_sign_one_order(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, unavailable_calls=3)
    gateway.push()
    for wait in (1, 2, 4, 8):
        gateway.dispatcher.run_once()
        gateway.clock.sleep(wait)
    assert (len(gateway.starter.specs), len(gateway.orders())) == (1, 1)


def test_a_gateway_without_the_key_signs_nothing_and_the_run_is_refused(gateway: Gateway) -> None:
    gateway.env.approval = ApprovalSettings()
    gateway.env.signing = gateway.env.signing.model_copy(update={"decisions_key": ""})
    gateway.push()
    gateway.dispatcher.run_once()
    (spec,) = gateway.starter.specs.values()
    assert "order" not in spec.parameters
    gateway.env.approval = ApprovalSettings(require_authentication=True)
    with pytest.raises(Refusal, match="not authenticated"):
        gateway.use(spec.parameters)
