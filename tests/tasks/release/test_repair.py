"""State that can always be repaired: a process dies, or the registry is away, at any point of a deployment or rollback."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from blocks.common.errors import Rejected, Unavailable
from blocks.endpoints.base import GoldenExample
from blocks.records.approvals import ApprovalRequest
from blocks.tracking.base import EVIDENCE_TAG
from runtime.digests import folder_digest
from tasks.approval.requests import submit_decision
from tasks.approval.rules.actions import Actor
from tasks.approval.rules.history import champion_of
from tasks.release.deployment import deploy_approved, golden_json
from tasks.release.repair import repair_release
from tasks.release.rollback import rollback_version
from tasks.shared.models import TeamModel
from tasks.shared.records import DeploymentResult
from tasks.shared.rules.refusal import Refusal
from tests.fakes.environment import SPEC, World, artifact_of, register
from tests.fixtures.approval_requests import FIRST, JUDGED, TRAINED, evidence, request_over

NOW = datetime.now(UTC)
GOLDEN = GoldenExample('{"instances": [1]}', "[0.75]")
MODEL = TeamModel(Path("models/price"), SPEC)


class Killed(BaseException):
    """The process ends here: no handler of `Exception` sees it."""


@dataclass
class Release:
    """Versions 1 and 2 of `price`, both approved; what happens to them is said by the tests."""

    env: World

    @property
    def effects(self) -> Any:
        return self.env.effects()

    @property
    def registry(self) -> Any:
        return self.env.tracking()

    def approve(self, version: str, before: str, **asked: Any) -> ApprovalRequest:
        digest = folder_digest(artifact_of(self.env, version))
        trained = TRAINED.model_copy(update={"version": version, "model_digest": digest})
        judged = JUDGED.model_copy(update={"champion_version": before}) if before else FIRST
        times = {"requested_at": NOW - timedelta(hours=1), "expires_at": NOW + timedelta(days=1)}
        request = self.env.approvals().add_request(
            request_over(evidence(trained=trained, judged=judged), **times | asked)
        )
        said = {"decided_by": "max@example.com", "reason": "it is better", "channel": "terminal", "now": NOW}
        submit_decision(self.env, request.id, approved=True, **said)
        return request

    def deploy(self, version: str, before: str = "") -> DeploymentResult:
        request = self.env.approvals()._find_request(f"price-{version}") or self.approve(version, before)
        return deploy_approved(self.env, MODEL, request, GOLDEN)

    def roll_back(self, to_version: str = "", key: str = "rollback:run-1") -> DeploymentResult:
        return rollback_version(
            self.env, "price", to_version, actor=Actor("ann", authenticated=True), reason="it is slow", key=key
        )

    def repair(self, **options: Any) -> tuple[list[str], list[str]]:
        done = repair_release(self.env, "price", NOW, **options)
        return done.done, done.open

    @property
    def agreed(self) -> tuple[str, str, str]:
        """Return what endpoint, ledger and registry say."""
        live = self.env.endpoint().live_version("price")
        named = self.registry.version("price", "@champion")
        ledger = champion_of(self.effects.deployments("price", "local"))
        return live.version if live else "", ledger, named.version if named else ""

    @property
    def lines(self) -> list[tuple[str, str, str]]:
        return [(line.version, line.action, line.status) for line in self.effects.deployments("price", "local")]


@pytest.fixture
def made(tmp_path: Path) -> Release:
    it = Release(World.at(tmp_path))
    register(it.env, {"rooms": 1.0})
    register(it.env, {"rooms": 2.0})
    for version in "12":
        it.registry.tag_version("price", version, {EVIDENCE_TAG: "digest of its signature"})
    it.deploy("1")
    return it


def kill(monkeypatch: pytest.MonkeyPatch, owner: Any, method: str, times: int = 1) -> None:
    """Let the process die at the next calls of this method, before it does anything."""
    left, real = [None] * times, getattr(type(owner), method)

    def die(*given: Any, **options: Any) -> Any:
        if left:
            left.pop()
            raise Killed
        return real(owner, *given, **options)

    monkeypatch.setattr(type(owner), method, lambda _, *given, **options: die(*given, **options))


POINTS: dict[str, tuple[Callable[[Release], Any], str, tuple[str, str, str]]] = {
    "after the switch, before the ledger": (lambda it: it.effects, "record_deployment", ("2", "1", "1")),
    "after the ledger, before the registry": (lambda it: it.registry, "tag_version", ("2", "2", "1")),
    "between tag and alias": (lambda it: it.registry, "set_alias", ("2", "2", "1")),
    "before the effect is finished": (lambda it: it.effects, "finish", ("2", "2", "2")),
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the thread that warms up
@pytest.mark.parametrize("way", ["repair", "retry"])
@pytest.mark.parametrize(("owner", "method", "left"), POINTS.values(), ids=POINTS)
def test_a_deployment_that_is_killed_ends_well_by_repair_and_by_a_retry(
    made: Release, monkeypatch: pytest.MonkeyPatch, owner: Any, method: str, left: Any, way: str
) -> None:
    made.approve("2", "1")
    kill(monkeypatch, owner(made), method)
    with pytest.raises(Killed):
        made.deploy("2")
    assert made.agreed == left
    if way == "retry":
        assert made.deploy("2").replaced_version == "1"
    else:
        would, _ = made.repair(dry_run=True)
        assert made.agreed == left, "a dry run writes nothing"
        assert made.repair() == (would, [])
        assert would
    assert made.agreed == ("2", "2", "2")
    assert made.lines == [("2", "deploy", "serving"), ("1", "deploy", "serving")]
    assert made.effects.deployments("price", "local")[0].by == "max@example.com"
    assert made.effects.unfinished("") == ()
    assert made.repair() == ([], []), "a repeat changes nothing"


@pytest.mark.parametrize("way", ["repair", "retry"])
@pytest.mark.parametrize(("owner", "method", "left"), POINTS.values(), ids=POINTS)
def test_a_rollback_that_is_killed_ends_well_by_repair_and_by_a_retry(
    made: Release, monkeypatch: pytest.MonkeyPatch, owner: Any, method: str, left: Any, way: str
) -> None:
    made.deploy("2", before="1")
    kill(monkeypatch, owner(made), method)
    with pytest.raises(Killed):
        made.roll_back()
    there = {"2": "1", "1": "2"}
    finished_late = method == "finish"  # a rollback finishes its effect before it tells the registry
    assert made.agreed == (("1", "1", "2") if finished_late else tuple(there[version] for version in left))
    if way == "retry":
        made.roll_back()
    else:
        would, _ = made.repair(dry_run=True)
        assert made.repair() == (would, [])
    assert made.agreed == ("1", "1", "1")
    line = made.effects.deployments("price", "local")[0]
    assert (line.version, line.action, line.by, line.reason) == ("1", "rollback", "ann", "it is slow")
    assert made.effects.unfinished("") == ()
    assert made.repair() == ([], [])


def test_a_rollback_to_a_version_whose_registry_entry_is_gone_serves_and_stands_in_the_ledger(made: Release) -> None:
    made.deploy("2", before="1")
    entry = made.registry._versions.pop(("price", "1"))
    done = made.roll_back()
    assert (done.version, "NotFound" in done.registry_problem) == ("1", True)
    assert made.agreed == ("1", "1", "2")
    changed, left = made.repair()
    assert (changed, len(left), "the registry has no version 1" in left[0]) == ([], 1, True)
    made.registry._versions["price", "1"] = entry
    assert made.repair() == (["the registry: champion is version 1"], [])
    assert made.agreed == ("1", "1", "1")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the thread that warms up
@pytest.mark.parametrize("action", ["deploy", "roll back"])
def test_while_the_registry_is_away_a_version_is_deployed_and_the_registry_follows_later(
    made: Release, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.approve("2", "1")
    if action == "roll back":
        made.deploy("2")
    record = type(made.effects).record_deployment

    def goes_away(effects: Any, deployment: Any) -> Any:
        made.registry.available = False  # after the deploy task has compared the version's record with the evidence
        return record(effects, deployment)

    monkeypatch.setattr(type(made.effects), "record_deployment", goes_away)
    done = made.deploy("2") if action == "deploy" else made.roll_back()
    assert "Unavailable" in done.registry_problem
    made.registry.available = True
    version = "2" if action == "deploy" else "1"
    assert made.agreed[:2] == (version, version) != made.agreed[1:]
    made.registry.available = False
    assert "the registry cannot be asked" in made.repair()[1][0]
    made.registry.available = True
    assert made.repair() == ([f"the registry: champion is version {version}"], [])


def test_a_version_whose_record_cannot_be_compared_with_the_evidence_is_not_deployed(made: Release) -> None:
    made.approve("2", "1")
    made.registry.available = False
    with pytest.raises(Unavailable):
        made.deploy("2")
    made.registry.available = True
    assert made.agreed == ("1", "1", "1")
    assert made.deploy("2").replaced_version == "1", "the task is tried again"


def test_an_alert_that_cannot_be_recorded_fails_no_deployment(made: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise Unavailable("the outbox is away")

    monkeypatch.setattr("tasks.release.registry.emit_alert", away)
    monkeypatch.setattr("tasks.release.rollback.emit_alert", away)
    assert made.deploy("2", before="1").version == "2"
    assert made.roll_back().version == "1"
    assert made.agreed == ("1", "1", "1")


def test_a_deployment_whose_approval_does_not_stand_any_more_is_not_recorded(
    made: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.approve("2", "1")
    kill(monkeypatch, made.effects, "record_deployment")
    with pytest.raises(Killed):
        made.deploy("2")
    late = repair_release(made.env, "price", NOW + timedelta(days=2))
    assert (late.done, "cannot be recorded" in late.open[0]) == ([], True)
    assert made.lines == [("1", "deploy", "serving")]


def test_a_version_that_nobody_intended_to_serve_is_left_to_a_person(made: Release) -> None:
    made.deploy("2", before="1")
    made.env.endpoint().rollback("price", "1")
    changed, left = made.repair()
    assert changed == []
    assert "the endpoint serves version 1 and the ledger says version 2" in left[0]
    assert "to_version=2" in left[0]
    assert made.agreed == ("1", "2", "2")


def test_an_interrupted_deployment_that_answers_wrongly_is_not_recorded(
    made: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.approve("2", "1")
    endpoint: Any = made.env.endpoint()
    kill(monkeypatch, endpoint, "verify")
    with pytest.raises(Killed):
        made.deploy("2")
    endpoint.wrong_answer_versions = ("2",)
    assert "predictions" in made.repair()[1][0]
    assert made.agreed == ("2", "1", "1")


def test_an_approval_whose_deployment_was_recorded_and_rolled_back_deploys_nothing_more(
    made: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.approve("2", "1")
    kill(monkeypatch, made.effects, "finish")
    with pytest.raises(Killed):
        made.deploy("2")
    made.roll_back()
    with pytest.raises(Refusal, match="was already used"):
        made.deploy("2")
    assert made.agreed == ("1", "1", "1")


def test_an_unfinished_effect_of_another_model_or_before_its_switch_changes_nothing(made: Release) -> None:
    made.approve("2", "1")
    made.effects.intend("deploy:price-2", golden_json(GOLDEN), NOW)
    made.effects.intend("deploy:other-1", golden_json(GOLDEN), NOW)
    assert made.repair() == ([], [])
    assert made.agreed == ("1", "1", "1")


def retry_after(made: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    """Roll back to version 1 in an attempt that the registry's transient error ends, as while retries are left."""
    made.deploy("2", before="1")
    with monkeypatch.context() as patched, pytest.raises(Unavailable):
        patched.setattr("tasks.shared.reports._has_retries_left", lambda: True)
        made.registry.available = False
        made.roll_back()
    made.registry.available = True
    assert made.agreed == ("1", "1", "2")


def test_a_retried_rollback_only_reports_and_cannot_bring_the_bad_version_back(
    made: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    retry_after(made, monkeypatch)
    endpoint: Any = made.env.endpoint()
    endpoint.wrong_answer_versions = ("1",)  # a second verification would fail
    done = made.roll_back()
    assert (done.version, done.replaced_version, done.registry_problem) == ("1", "2", "")
    assert made.agreed == ("1", "1", "1")
    assert made.lines[0] == ("1", "rollback", "serving")


@pytest.mark.parametrize("followed", ["a deployment", "a rollback"])
def test_a_retried_rollback_that_another_line_follows_touches_nothing(
    made: Release, monkeypatch: pytest.MonkeyPatch, followed: str
) -> None:
    retry_after(made, monkeypatch)
    if followed == "a deployment":
        register(made.env, {"rooms": 3.0})
        made.deploy("3", before="1")
    else:
        made.roll_back("2", key="rollback:run-2")
    agreed, lines = made.agreed, made.lines
    with pytest.raises(Refusal, match="another deployment or rollback followed it"):
        made.roll_back()
    assert (made.agreed, made.lines) == (agreed, lines)


def test_a_retried_rollback_whose_version_is_not_live_restores_what_was_live_when_it_fails(
    made: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(made.env, {"rooms": 3.0})
    made.deploy("2", before="1")
    made.deploy("3", before="2")
    made.roll_back("1")
    endpoint: Any = made.env.endpoint()
    endpoint.rollback("price", "2")  # by hand
    endpoint.wrong_answer_versions = ("1",)
    with pytest.raises(Rejected):
        made.roll_back("1")
    assert made.agreed[0] == "2", "not version 3, which was rolled back"


def test_the_remedy_for_a_version_that_nobody_intended_to_serve_can_be_followed(
    made: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.deploy("2", before="1")
    made.env.endpoint().rollback("price", "1")
    assert "roll back with to_version=2" in made.repair()[1][0]
    kill(monkeypatch, made.effects, "record_deployment")
    with pytest.raises(Killed):
        made.roll_back("2")
    made.roll_back("2")
    assert made.agreed == ("2", "2", "2")
    assert made.repair() == ([], [])


@pytest.fixture
def failed(made: Release, monkeypatch: pytest.MonkeyPatch) -> Release:
    """Version 2 failed its verification and version 1 could not be restored; now version 2 answers as it should."""

    def away(*_: Any) -> None:
        raise Unavailable("the endpoint is away")

    made.approve("2", "1")
    endpoint: Any = made.env.endpoint()
    endpoint.wrong_answer_versions = ("2",)
    with monkeypatch.context() as patched, pytest.raises(Rejected):
        patched.setattr(type(endpoint), "rollback", away)
        made.deploy("2")
    endpoint.wrong_answer_versions = ()
    assert made.agreed == ("2", "1", "1")
    return made


def test_a_recorded_failure_that_serves_is_left_to_a_person(failed: Release) -> None:
    changed, left = failed.repair()
    assert changed == []
    assert "the deploy of version 2 failed, and the endpoint serves it" in left[0]
    assert "to_version=1" in left[1]
    assert failed.lines == [("2", "deploy", "failed"), ("1", "deploy", "serving")]
    failed.roll_back("1")
    assert failed.agreed == ("1", "1", "1")
    assert failed.repair() == ([], [])


def test_a_failure_whose_version_before_was_restored_leaves_nothing_to_do(made: Release) -> None:
    made.approve("2", "1")
    endpoint: Any = made.env.endpoint()
    endpoint.wrong_answer_versions = ("2",)
    with pytest.raises(Rejected):
        made.deploy("2")
    assert made.repair() == ([], [])


@pytest.mark.parametrize("left", ["failed", "before its switch"])
def test_a_stale_intent_does_not_stand_in_for_a_later_request_of_the_version(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    made: Release = request.getfixturevalue("failed" if left == "failed" else "made")
    if left == "before its switch":
        made.approve("2", "1")
        made.effects.intend("deploy:price-2", golden_json(GOLDEN), datetime.now(UTC))
    later = made.approve("2", "1", id="price-2-later")
    kill(monkeypatch, made.effects, "record_deployment")
    with pytest.raises(Killed):
        deploy_approved(made.env, MODEL, later, GOLDEN)
    assert made.repair() == (["the ledger: the deploy of version 2 is recorded; it was interrupted after the switch",
                              "the registry: champion is version 2"], [])  # fmt: skip
    assert made.effects.deployments("price", "local")[0].request_id == "price-2-later"
    made.roll_back("1")
    made.env.endpoint().rollback("price", "2")  # by hand: the stale intent does not explain it
    changed, open_ = made.repair()
    assert (changed, len(open_)) == ([], 1)
    assert "no interrupted deployment or rollback explains it" in open_[0]


def test_a_deployed_version_without_an_evidence_pack_is_left_to_a_person(made: Release) -> None:
    register(made.env, {"rooms": 3.0})
    made.deploy("3", before="1")
    made.registry._versions["price", "3"].tags.pop(EVIDENCE_TAG, None)
    changed, left = made.repair()
    assert (changed, len(left)) == ([], 1)
    assert "version 3 has no evidence pack" in left[0]
    assert "prefect flow-run retry" in left[0]
    made.registry.tag_version("price", "3", {EVIDENCE_TAG: "digest of its signature"})
    assert made.repair() == ([], [])
