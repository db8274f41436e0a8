"""The dispatcher, from the inbox to flow runs: each delivery starts its runs by the rules, once, despite failures."""

import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from blocks.common.errors import Conflict
from blocks.inbox.base import Delivery, IncomingDelivery
from blocks.inbox.fake import FakeInbox
from deployments.git import RepositoryCache
from deployments.secret_store import SecretStore
from services.gateway.dispatch import LEASE_NAME, MIRROR_LAG, Dispatcher, find_missed_pushes, ingest_missed_push
from services.gateway.fake import FakeRunStarter
from services.gateway.ingest import read_delivery
from services.gateway.rules.rules import Triggers
from services.gateway.signatures import VerifiedDelivery
from tests.fakes.git_hosts import Remote
from tests.fixtures.clocks import Clock
from tests.fixtures.hooks import C2, TRIGGERS, Hook, bitbucket_push, hook, push, triggers
from tests.waiting import wait_for

NOW = datetime(2026, 11, 21, 10, tzinfo=UTC)


@dataclass
class World:
    """An inbox, a replacement of Prefect, and the dispatcher between them."""

    inbox: FakeInbox
    starter: FakeRunStarter
    dispatcher: Dispatcher
    clock: Clock

    def deliver(self, given: Hook) -> None:
        rules = self.dispatcher.triggers
        read = read_delivery(rules, given.sender, given.raw, given.body, VerifiedDelivery(), NOW)
        assert isinstance(read, IncomingDelivery)
        self.inbox.receive_all([read])

    def outcome(self, delivery_id: str = "github:d-1") -> Any:
        return self.inbox.delivery_status(delivery_id).outcome


def env(tmp_path: Path, rules: Triggers | None = None, **knobs: Any) -> World:
    inbox, starter, clock = FakeInbox(), FakeRunStarter(**knobs), Clock()
    mirrors = RepositoryCache(tmp_path / "mirrors")
    dispatcher = Dispatcher(inbox, rules or triggers(), starter, mirrors, SecretStore({}), lambda: NOW, monotonic=clock)
    return World(inbox, starter, dispatcher, clock)


def test_a_push_becomes_a_run_of_exactly_its_commit(tmp_path: Path) -> None:
    it = env(tmp_path)
    it.deliver(hook("github", "push", push()))
    assert it.dispatcher.run_once() == 1
    (order,) = it.starter.specs.values()
    assert (order.deployment, order.idempotency_key) == ("retrain/retrain", "git/github:d-1#0/changed models/churn")
    assert order.parameters == {"model": "churn", "tier": "staging", "requested_by": "ada <ada@acme.example>"}
    assert order.environment_variables == {
        "RATCHET_COMMIT": C2,
        "RATCHET_REPOSITORY": "https://github.com/acme/models.git",
    }
    assert order.tags == ("git", f"commit:{C2}", "delivery:github:d-1", "rule:changed models")
    assert (it.outcome().state, [run.rule for run in it.outcome().runs]) == ("started", ["changed models"])
    assert it.dispatcher.run_once() == 0


def test_the_address_of_the_code_is_that_of_the_rules_whatever_the_delivery_says(tmp_path: Path) -> None:
    it = env(tmp_path)
    liar = push(repository={"full_name": "acme/models", "clone_url": "https://evil.example/x.git"})
    it.deliver(hook("github", "push", liar))
    it.dispatcher.run_once()
    (order,) = it.starter.specs.values()
    assert order.environment_variables["RATCHET_REPOSITORY"] == "https://github.com/acme/models.git"


def test_what_no_rule_wants_is_ignored_with_its_reason(tmp_path: Path) -> None:
    it = env(tmp_path)
    files = [{"id": C2, "added": [], "removed": [], "modified": ["README.md"]}]
    it.deliver(hook("github", "push", push(commits=files)))
    assert it.dispatcher.run_once() == 1
    assert (it.outcome().state, it.starter.calls) == ("ignored", 0)
    assert "none of the 1 changed files" in it.outcome().reason


def test_while_prefect_is_away_nothing_is_lost_and_one_run_comes_of_it(tmp_path: Path) -> None:
    it = env(tmp_path, unavailable_calls=3)
    it.deliver(hook("github", "push", push()))
    for wait in (1, 2, 4):
        it.dispatcher.run_once()
        it.clock.sleep(wait - 0.1)
        assert it.dispatcher.run_once() == 0, "it is not due yet"
        it.clock.sleep(0.1)
    it.dispatcher.run_once()
    assert (it.starter.calls, len(it.starter.specs), it.outcome().state) == (4, 1, "started")
    assert [note.kind for note in it.inbox.notes()] == ["waits"], "it is noted once why it waits"


def test_what_waits_does_not_hold_up_what_comes_after_it(tmp_path: Path) -> None:
    it = env(tmp_path, unavailable_calls=1)
    it.deliver(hook("github", "push", push()))
    later = [{"id": "3" * 40, "added": [], "removed": [], "modified": ["models/churn/train.py"]}]
    it.deliver(hook("github", "push", push(after="3" * 40, commits=later), id="d-2"))
    assert it.dispatcher.run_once() == 1
    assert (it.outcome(), it.outcome("github:d-2").state) == (None, "started")


def test_an_error_of_ours_in_one_delivery_does_not_hold_up_the_others(tmp_path: Path) -> None:
    it = env(tmp_path)
    it.inbox.receive(Delivery("github:odd", "github", "push", "acme/models", "main", C2, "d", "no JSON", NOW))
    it.deliver(hook("github", "push", push()))
    assert it.dispatcher.run_once() == 1
    assert it.outcome().state == "started"
    assert it.outcome("github:odd") is None


def test_an_order_that_prefect_refuses_is_told_and_the_others_start(tmp_path: Path) -> None:
    two = TRIGGERS + "  - {name: second, deployment: batch_inference/batch-inference}\n"
    it = env(tmp_path, triggers(two), refused_deployments=("retrain/retrain",))
    it.deliver(hook("github", "push", push()))
    it.dispatcher.run_once()
    assert [order.deployment for order in it.starter.specs.values()] == ["batch_inference/batch-inference"]
    assert (it.outcome().state, it.outcome().reason) == ("started", "changed models: this fake refuses retrain/retrain")
    alone = env(tmp_path, refused_deployments=("retrain/retrain",))
    alone.deliver(hook("github", "push", push()))
    alone.dispatcher.run_once()
    assert alone.outcome().state == "refused"


def test_killed_between_start_and_outcome_it_finds_the_same_run_again(tmp_path: Path) -> None:
    it = env(tmp_path)
    it.deliver(hook("github", "push", push()))
    (turn,) = it.inbox.pending_attempts()
    first = it.dispatcher._outcome(turn)  # the run is started; killed here, nothing is recorded
    assert it.dispatcher.run_once() == 1
    assert it.outcome() == first
    assert len(it.starter.specs) == 1


def test_rules_that_changed_since_are_those_of_today(tmp_path: Path) -> None:
    it = env(tmp_path)
    it.deliver(hook("github", "push", push()))
    it.dispatcher.triggers = triggers(TRIGGERS.replace("branches: [main,", "branches: [trunk,"))
    it.dispatcher.run_once()
    assert it.outcome().state == "ignored"
    assert "is not configured in triggers.yaml" in it.outcome().reason


def test_a_redelivery_is_a_turn_of_its_own_under_todays_rules(tmp_path: Path) -> None:
    it = env(tmp_path, triggers(TRIGGERS.partition("rules:")[0]))
    it.deliver(hook("github", "push", push()))
    with pytest.raises(Conflict):
        it.inbox.request_reprocessing("github:d-1", "ada", NOW)
    it.dispatcher.run_once()
    assert it.outcome().state == "ignored"
    it.dispatcher.triggers = triggers()
    it.inbox.request_reprocessing("github:d-1", "ada", NOW)
    it.dispatcher.run_once()
    assert it.outcome().state == "started"
    assert list(it.starter.specs) == ["git/github:d-1#1/changed models/churn"]


def test_of_two_gateways_one_works_until_it_is_gone_for_a_while(tmp_path: Path) -> None:
    one = env(tmp_path)
    two = replace(one.dispatcher, holder="the other one")
    assert one.dispatcher.run_once() == 0
    one.deliver(hook("github", "push", push()))
    assert two.run_once() == 0
    two.clock = lambda: NOW + timedelta(seconds=16)
    assert two.run_once() == 1
    assert one.dispatcher.run_once() == 0


def test_it_works_when_woken_and_lets_go_of_its_lease_in_the_end(tmp_path: Path) -> None:
    it, stop, woken = env(tmp_path), threading.Event(), threading.Event()
    thread = threading.Thread(target=it.dispatcher.run, args=(stop, woken))
    thread.start()
    it.deliver(hook("github", "push", push()))
    woken.set()
    wait_for(lambda: it.outcome() is not None)
    stop.set()
    woken.set()
    thread.join(60)
    assert not thread.is_alive()
    assert it.inbox.acquire_lease(LEASE_NAME, "another", NOW, NOW + timedelta(minutes=1)) is not None


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    made = Remote.make(tmp_path)
    made.push({"models/churn/train.py": "1", "models/price/train.py": "1", "README.md": "1"})
    return made


def of(remote: Remote, sender: str = "bitbucket") -> Triggers:
    clone = {"bitbucket": "https://bitbucket.org/acme/models.git", "github": "https://github.com/acme/models.git"}
    return triggers(TRIGGERS.replace(clone[sender], remote.url))


def test_files_that_a_host_does_not_name_are_asked_of_git(tmp_path: Path, remote: Remote) -> None:
    before = remote.push({"README.md": "2"})
    after = remote.push({"models/price/train.py": "2", "README.md": None})
    it = env(tmp_path, of(remote))
    changes = bitbucket_push(new={"type": "branch", "name": "main", "target": {"hash": after}},
                             old={"type": "branch", "name": "main", "target": {"hash": before}})  # fmt: skip
    it.deliver(hook("bitbucket", "repo:push", changes))
    it.dispatcher.run_once()
    (order,) = it.starter.specs.values()
    assert (order.parameters["model"], order.environment_variables["RATCHET_COMMIT"]) == ("price", after)


def test_of_a_new_branch_every_file_counts_as_changed(tmp_path: Path, remote: Remote) -> None:
    head = remote.push({"README.md": "2"})
    found = RepositoryCache(tmp_path / "m").changed_files(remote.url, "", head)
    assert found == ["README.md", "models/churn/train.py", "models/price/train.py"]
    assert RepositoryCache(tmp_path / "m").changed_files(remote.url, "", head, merged=True) == ["README.md"]
    assert RepositoryCache(tmp_path / "m").changed_files(remote.url, "f" * 40, head) == found, (
        "the commit before is gone"
    )


def test_a_commit_that_the_repository_does_not_have_is_refused(tmp_path: Path, remote: Remote) -> None:
    it = env(tmp_path, of(remote, "github"))
    it.deliver(hook("github", "push", push(forced=True)))
    it.dispatcher.clock = lambda: NOW + MIRROR_LAG
    it.dispatcher.run_once()
    assert it.outcome().state == "refused"
    assert "does not have the commit" in it.outcome().reason
    assert it.starter.calls == 0


def test_a_repository_that_is_away_is_waited_for(tmp_path: Path) -> None:
    gone = TRIGGERS.replace("https://github.com/acme/models.git", "https://127.0.0.1:1/acme/models.git")
    it = env(tmp_path, triggers(gone))
    it.deliver(hook("github", "push", push(forced=True)))
    assert it.dispatcher.run_once() == 0
    assert it.outcome() is None


def test_a_push_that_never_came_is_found_by_asking_git_and_taken_in(tmp_path: Path, remote: Remote) -> None:
    rules = of(remote, "github")
    rules = rules.model_copy(update={"repositories": rules.repositories[:1]})
    it = env(tmp_path, rules)
    came = remote.push({"README.md": "2"})
    it.deliver(hook("github", "push", push(after=came)))
    look = lambda: list(find_missed_pushes(it.inbox, rules, it.dispatcher.repositories, SecretStore({})))  # noqa: E731  said three times
    assert look() == []
    lost = remote.push({"models/price/train.py": "2"})
    remote.push({"x": "1"}, branch="feature")
    (found,) = look()
    assert (found.branch, found.commit, found.last_delivered) == ("main", lost, came)
    name = ingest_missed_push(it.inbox, found, "ada", NOW)
    assert look() == []
    it.dispatcher.run_once()
    assert [
        order.parameters["model"] for order in it.starter.specs.values() if f"{name}#" in order.idempotency_key
    ] == ["price"]


def test_a_delivery_of_a_repository_that_is_no_longer_listed_starts_nothing(tmp_path: Path) -> None:
    it = env(tmp_path)
    it.deliver(hook("github", "push", push()))
    it.dispatcher.triggers = it.dispatcher.triggers.model_copy(update={"repositories": ()})
    it.dispatcher.run_once()
    assert (it.outcome().state, it.starter.calls) == ("ignored", 0)
