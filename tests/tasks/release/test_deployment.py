"""Only what was approved goes into service, once; whatever goes wrong, the version before it serves on."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from blocks.approvals.base import ApprovalRequest, Decision
from blocks.common.errors import Corrupt, Rejected, TerminalError, Unavailable
from blocks.effects.base import Effect
from blocks.endpoints.base import Golden, LogRules, Probe, Release
from blocks.tracking.fake import MODEL_FILE
from runtime.digests import folder_digest
from tasks.approval.requests import decide
from tasks.approval.rules.evidence import Evidence
from tasks.release.deployment import approved_files, golden_json, log_rules, put_into_service, still_approved, switch
from tasks.shared.rules.model.spec import parse_spec
from tasks.shared.rules.refusal import Refusal
from tests.tasks.approval.test_requests import FIRST, JUDGED, TRAINED, evidence, request_over
from tests.tasks.shared.rules.model.spec_cases import BINARY
from tests.tasks.shared.test_champion import NOW, World, artifact_of, register

GOLDEN = Golden('{"instances": [1]}', "[0.75]")
BEGUN = Effect("deploy:it", "intent", "", "", NOW)
"""What a deployment that was interrupted left in the ledger."""


def approved(world: World, shown: Evidence, **asked: Any) -> ApprovalRequest:
    """Ask for approval of this evidence, and let a second person approve."""
    request = world.approvals().request_approval(request_over(shown, **asked))
    said = {"by": "max@example.com", "reason": "it is better", "channel": "terminal", "now": NOW}
    decide(world, request.id, approved=True, **said)
    return request


def decision(request: ApprovalRequest, **changes: Any) -> Decision:
    given = Decision(request.id, request.digest, True, "max@example.com", "it is better", "terminal", NOW)
    return replace(given, **changes)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.at(tmp_path)


def test_an_approval_over_exactly_this_evidence_stands(world: World) -> None:
    request = approved(world, evidence())
    assert still_approved(world, request, "1", begun=None, now=NOW) == evidence()


def test_a_first_model_is_approved_with_nothing_serving(world: World) -> None:
    request = approved(world, evidence(judged=FIRST))
    assert still_approved(world, request, "", begun=None, now=NOW).champion_version == ""


def test_without_a_decision_nothing_is_deployed(world: World) -> None:
    request = world.approvals().request_approval(request_over(evidence()))
    with pytest.raises(Refusal, match="nobody has decided yet"):
        still_approved(world, request, "1", begun=None, now=NOW)


UNSOUND: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "rejected": ({}, {"approved": False, "reason": "not now"}, r"rejected by max@example\.com: not now"),
    "over another digest": ({}, {"digest": "0" * 64}, "over other evidence"),
    "by the requester": ({}, {"by": "dana@example.com"}, "who asked may not decide"),
    "by someone not on the list": ({"approvers": ("ann@example.com",)}, {}, "not among the approvers"),
    "expired since": ({"expires_at": NOW - timedelta(seconds=1)}, {"at": NOW - timedelta(minutes=1)}, "has expired"),
    "decided too late": ({"expires_at": NOW + timedelta(hours=1)}, {"at": NOW + timedelta(hours=2)}, "clock has gone back"),
}  # fmt: skip


@pytest.mark.parametrize("resumed", [False, True], ids=["new", "resumed"])
@pytest.mark.parametrize(("asked", "said", "problem"), UNSOUND.values(), ids=UNSOUND)
def test_a_decision_that_does_not_stand_deploys_nothing(
    world: World, asked: dict[str, Any], said: dict[str, Any], problem: str, resumed: bool
) -> None:
    request = world.approvals().request_approval(request_over(evidence(), **asked))
    world.approvals().decide(
        decision(request, **said), world.signing.signer("decisions")
    )  # straight into the ledger, past the rules of `decide`
    with pytest.raises(Refusal, match=problem):
        still_approved(world, request, "1", begun=BEGUN if resumed else None, now=NOW)


def test_an_approval_of_one_evidence_is_none_of_another(world: World) -> None:
    request = approved(world, evidence())
    other = request_over(evidence(trained=TRAINED.model_copy(update={"model_digest": "x" * 64})))
    with pytest.raises(Refusal, match="was changed after it was decided"):
        still_approved(world, other, "1", begun=None, now=NOW)
    with pytest.raises(Refusal, match="was changed after it was decided"):
        still_approved(world, replace(request, evidence=other.evidence), "1", begun=None, now=NOW)


@pytest.mark.parametrize(("serving", "shown"), [("3", "3"), ("", "none")], ids=["another", "none"])
def test_an_approval_against_another_champion_has_lapsed(world: World, serving: str, shown: str) -> None:
    request = approved(world, evidence())
    with pytest.raises(Refusal, match=rf"champion has changed .*from 1.*{shown}"):
        still_approved(world, request, serving, begun=None, now=NOW)


@pytest.mark.parametrize("tier", ["development", "staging"])
def test_a_model_of_a_sample_is_never_deployed(world: World, tier: str) -> None:
    request = approved(world, replace(evidence(), tier=tier))
    with pytest.raises(Refusal, match=rf"only a model of the production tier.*{tier} tier, pass"):
        still_approved(world, request, "1", begun=None, now=NOW)


@pytest.mark.parametrize("outcome", ["hold", "inconclusive"])
def test_a_model_that_did_not_pass_is_never_deployed(world: World, outcome: str) -> None:
    request = approved(world, evidence(judged=JUDGED.model_copy(update={"outcome": outcome})))
    with pytest.raises(Refusal, match=rf"production tier, {outcome}"):
        still_approved(world, request, "1", begun=None, now=NOW)


def test_an_approval_that_was_used_is_none_after_the_version_was_taken_back(world: World) -> None:
    request = approved(world, evidence())
    done = replace(BEGUN, state="done", outcome="version 2 served")
    with pytest.raises(Refusal, match="was used"):
        still_approved(world, request, "1", begun=done, now=NOW)
    assert still_approved(world, request, request.version, begun=done, now=NOW) == evidence()


def test_a_deployment_that_was_interrupted_after_it_served_may_go_on(world: World) -> None:
    request = approved(world, evidence())
    assert still_approved(world, request, request.version, begun=BEGUN, now=NOW) == evidence()


def test_a_version_that_serves_without_an_interrupted_deployment_is_another_champion(world: World) -> None:
    request = approved(world, evidence())
    with pytest.raises(Refusal, match="champion has changed"):
        still_approved(world, request, request.version, begun=None, now=NOW)


def test_an_interrupted_deployment_does_not_go_on_over_a_third_champion(world: World) -> None:
    request = approved(world, evidence())
    with pytest.raises(Refusal, match="champion has changed"):
        still_approved(world, request, "3", begun=BEGUN, now=NOW)


def challenger(world: World) -> tuple[ApprovalRequest, Evidence]:
    """Register versions 1 and 2 of `price`, and ask for approval of the second."""
    register(world, {"rooms": 1.0})
    version = register(world, {"rooms": 2.0}).version
    digest = folder_digest(artifact_of(world, version))
    shown = evidence(trained=TRAINED.model_copy(update={"version": version, "model_digest": digest}))
    return request_over(shown), shown


def test_the_files_on_this_machine_are_served_when_they_are_those_that_were_approved(world: World) -> None:
    request, shown = challenger(world)
    world.tracking().available = False  # type: ignore[attr-defined]
    assert folder_digest(approved_files(world, request, shown)) == shown.model_digest


def test_files_that_this_machine_does_not_have_come_from_the_registry(world: World, tmp_path: Path) -> None:
    request, shown = challenger(world)
    there = world.model_copy(update={"scratch": tmp_path / "another machine"})
    files = approved_files(there, request, shown)
    assert files.is_relative_to(tmp_path / "another machine")
    assert folder_digest(files) == shown.model_digest


@pytest.mark.parametrize("where", ["here", "registry"])
def test_files_that_were_changed_after_the_approval_are_refused(world: World, tmp_path: Path, where: str) -> None:
    request, shown = challenger(world)
    if where == "here":
        changed = artifact_of(world, request.version)
    else:
        world = world.model_copy(update={"scratch": tmp_path / "another machine"})
        changed = tmp_path / "runs" / "run-2" / "model"
    (changed / MODEL_FILE).write_text('{"rooms": -2.0}')
    with pytest.raises(Refusal, match=r"(?s)price version 2.*not those that were approved.*retrain"):
        approved_files(world, request, shown)


def releases(folder: Path) -> tuple[Release, Release]:
    """Return two releases of one endpoint, each with an artifact of its own."""
    made = []
    for version in ("1", "2"):
        artifact = folder / version
        artifact.mkdir()
        (artifact / "weights").write_text(version)
        made.append(Release("price", version, artifact, folder_digest(artifact), GOLDEN))
    return made[0], made[1]


def in_service(world: World, release: Release, before: str = "") -> tuple[str, Probe]:
    """Put an approved release into service."""
    shown = evidence(
        trained=TRAINED.model_copy(update={"version": release.version, "model_digest": release.digest}),
        judged=JUDGED if before else FIRST,
    )
    return put_into_service(world, approved(world, shown), release, before)


def lines(world: World) -> list[tuple[str, str, str]]:
    return [(line.version, line.action, line.status) for line in world.effects().deployments("price", "local")]


def served(world: World) -> str:
    now = world.endpoint().serving("price")
    return now.version if now else ""


def world_with(tmp_path: Path, **knobs: Any) -> tuple[World, Release]:
    """Return a world in which version 1 serves, and the release of version 2."""
    world = World.at(tmp_path, **knobs)
    register(world, {"rooms": 1.0})
    register(world, {"rooms": 2.0})
    one, two = releases(tmp_path)
    in_service(world, one)
    return world, two


def test_an_approved_version_serves_and_bears_the_alias_and_stands_in_the_ledger(tmp_path: Path) -> None:
    world, two = world_with(tmp_path)
    assert in_service(world, two, before="1")[0] == "fake://price"
    assert served(world) == "2"
    champion = world.tracking().version("price", "@champion")
    assert champion is not None
    assert champion.version == "2"
    assert lines(world) == [("2", "deploy", "serving"), ("1", "deploy", "serving")]
    line = world.effects().deployments("price", "local")[0]
    assert (line.by, line.reason, line.digest) == ("max@example.com", "it is better", two.digest)
    assert line.request_id == "price-2"


TROUBLE: dict[str, tuple[dict[str, Any], str]] = {
    "refused by preflight": ({"reject_versions": ("2",)}, "refused"),
    "wrong answers once live": ({"wrong_answers": ("2",)}, "predictions"),
}


@pytest.mark.parametrize(("knobs", "problem"), TROUBLE.values(), ids=TROUBLE)
def test_a_version_that_does_not_serve_as_it_should_leaves_the_one_before_it(
    tmp_path: Path, knobs: dict[str, Any], problem: str
) -> None:
    world, two = world_with(tmp_path, **knobs)
    with pytest.raises(Rejected, match=problem):
        in_service(world, two, before="1")
    assert served(world) == "1"
    assert lines(world) == [("2", "deploy", "failed"), ("1", "deploy", "serving")]
    assert problem in world.effects().deployments("price", "local")[0].reason
    champion = world.tracking().version("price", "@champion")
    assert champion is not None
    assert champion.version == "1"


def test_files_damaged_on_the_way_leave_the_version_before(tmp_path: Path) -> None:
    world, two = world_with(tmp_path)
    (two.artifact / "weights").write_text("damaged")
    with pytest.raises(Corrupt):
        in_service(world, two, before="1")
    assert served(world) == "1"
    assert lines(world)[0] == ("2", "deploy", "failed")


def test_a_first_version_that_preflight_refuses_is_never_live(tmp_path: Path) -> None:
    world = World.at(tmp_path, reject_versions=("1",))
    register(world, {"rooms": 1.0})
    with pytest.raises(Rejected):
        in_service(world, releases(tmp_path)[0])
    assert served(world) == ""
    assert lines(world) == [("1", "deploy", "failed")]


def test_a_first_version_that_answers_wrongly_is_withdrawn_and_no_champion(tmp_path: Path) -> None:
    world = World.at(tmp_path, wrong_answers=("1",))
    register(world, {"rooms": 1.0})
    with pytest.raises(Rejected, match="predictions"):
        in_service(world, releases(tmp_path)[0])
    assert served(world) == ""
    assert lines(world) == [("1", "deploy", "failed")]
    assert world.tracking().version("price", "@champion") is None


def test_the_ledger_says_what_was_wrong_even_when_the_version_before_cannot_be_restored(tmp_path: Path) -> None:
    world = World.at(tmp_path, wrong_answers=("2",))
    with pytest.raises(TerminalError):
        in_service(world, releases(tmp_path)[1], before="1")  # which this endpoint has not kept
    (line,) = world.effects().deployments("price", "local")
    assert "predictions" in line.reason


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the thread that warms up
def test_a_server_that_is_busy_writes_no_failure_and_the_next_try_serves(tmp_path: Path) -> None:
    world, two = world_with(tmp_path)
    world.tracking().available = False  # type: ignore[attr-defined]  - goes down after the switch
    with pytest.raises(Unavailable):
        in_service(world, two, before="1")
    assert lines(world) == [("1", "deploy", "serving")]
    world.tracking().available = True  # type: ignore[attr-defined]
    in_service(world, two, before="1")
    assert lines(world) == [("2", "deploy", "serving"), ("1", "deploy", "serving")]


def test_a_second_switch_after_a_kill_changes_nothing_and_needs_no_second_preflight(tmp_path: Path) -> None:
    world, two = world_with(tmp_path)
    endpoint: Any = world.endpoint()
    switch(endpoint, two, "1")
    first = endpoint.serving("price")
    endpoint.reject_versions = ("2",)  # what would refuse a second preflight
    assert switch(endpoint, two, "1")[0] == first.url
    assert endpoint.serving("price") == first


def test_the_same_version_with_other_files_is_not_taken_for_the_one_that_serves(tmp_path: Path) -> None:
    world, two = world_with(tmp_path)
    switch(world.endpoint(), two, "1")
    (two.artifact / "weights").write_text("other")
    with pytest.raises(Rejected, match="another digest"):
        switch(world.endpoint(), replace(two, digest=folder_digest(two.artifact)), "1")
    assert served(world) == "2"


def test_a_deployment_run_twice_leaves_one_line(tmp_path: Path) -> None:
    world, two = world_with(tmp_path)
    in_service(world, two, before="1")
    in_service(world, two, before="1")
    assert lines(world) == [("2", "deploy", "serving"), ("1", "deploy", "serving")]


def test_a_golden_request_is_read_back_from_the_ledger_as_it_was() -> None:
    golden = Golden('{"instances": ["größer"]}', "[[0.25, 0.75]]", 1e-6)
    assert Golden(**json.loads(golden_json(golden))) == golden


def test_the_endpoint_logs_what_model_yaml_lets_it() -> None:
    spec = parse_spec(BINARY, "model.yaml")
    assert log_rules(spec) == LogRules(key=spec.data.entity)
    limited = parse_spec(f"{BINARY}\ninference_log: {{leave_out: [rooms], hash: [street]}}\n", "model.yaml")
    assert log_rules(limited) == LogRules(spec.data.entity, ("rooms",), ("street",))
    assert log_rules(parse_spec(f"{BINARY}\ninference_log: {{keep: false}}\n", "model.yaml")) is None
