"""Deployment: only an approved version is deployed, once; after any failure the previous version stays deployed."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from blocks.common.errors import Corrupt, Rejected, TerminalError
from blocks.effects.base import Effect
from blocks.endpoints.base import GoldenExample, InferenceLogPolicy, ProbeResult, Release
from blocks.records.approvals import ApprovalRequest, Decision
from blocks.tracking.fake import MODEL_FILE
from runtime.digests import folder_digest
from tasks.approval.rules.evidence import Evidence
from tasks.release.deployment import (
    approved_files,
    approved_release,
    golden_json,
    inference_log_rules,
    switch_and_record,
    switch_and_verify,
    verify_approval,
)
from tasks.shared.records import CodeProvenance, TierData
from tasks.shared.rules.model.holdout import HoldoutRule
from tasks.shared.rules.model.spec import parse_spec
from tasks.shared.rules.refusal import Refusal
from tasks.training.jobs import version_tags
from tests.fakes.environment import NOW, World, artifact_of, register
from tests.fixtures.approval_requests import DATA, FIRST, JUDGED, TRAINED, evidence, request_over
from tests.fixtures.approved_releases import approved
from tests.fixtures.spec_cases import BINARY

GOLDEN = GoldenExample('{"instances": [1]}', "[0.75]")
BEGUN = Effect("deploy:it", "intent", "", "", NOW)
"""What an interrupted deployment left in the ledger."""


@pytest.fixture
def env(tmp_path: Path) -> World:
    return World.at(tmp_path)


def decision(request: ApprovalRequest, **changes: Any) -> Decision:
    given = Decision(request.id, request.digest, True, "max@example.com", "it is better", "terminal", NOW)
    return replace(given, **changes)


def test_an_approval_over_exactly_this_evidence_stands(env: World) -> None:
    request = approved(env, evidence())
    assert verify_approval(env, request, "1", interrupted_effect=None, now=NOW) == evidence()


def test_a_first_model_is_approved_with_nothing_serving(env: World) -> None:
    request = approved(env, evidence(judged=FIRST))
    assert verify_approval(env, request, "", interrupted_effect=None, now=NOW).champion_version == ""


def test_without_a_decision_nothing_is_deployed(env: World) -> None:
    request = env.approvals().add_request(request_over(evidence()))
    with pytest.raises(Refusal, match="nobody has decided yet"):
        verify_approval(env, request, "1", interrupted_effect=None, now=NOW)


UNSOUND: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "rejected": ({}, {"approved": False, "reason": "not now"}, r"rejected by max@example\.com: not now"),
    "over another digest": ({}, {"digest": "0" * 64}, "about other evidence"),
    "by the requester": ({}, {"by": "dana@example.com"}, "the requester may not decide"),
    "by someone not on the list": ({"approvers": ("ann@example.com",)}, {}, "not among the approvers"),
    "expired since": ({"expires_at": NOW - timedelta(seconds=1)}, {"at": NOW - timedelta(minutes=1)}, "has expired"),
    "decided too late": ({"expires_at": NOW + timedelta(hours=1)}, {"at": NOW + timedelta(hours=2)}, "clock has gone back"),
}  # fmt: skip


@pytest.mark.parametrize("resumed", [False, True], ids=["new", "resumed"])
@pytest.mark.parametrize(("asked", "said", "problem"), UNSOUND.values(), ids=UNSOUND)
def test_a_decision_that_does_not_stand_deploys_nothing(
    env: World, asked: dict[str, Any], said: dict[str, Any], problem: str, resumed: bool
) -> None:
    request = env.approvals().add_request(request_over(evidence(), **asked))
    env.approvals().record_decision(
        decision(request, **said), env.signing.signer("decisions")
    )  # straight into the ledger, without the rules of `decide`
    with pytest.raises(Refusal, match=problem):
        verify_approval(env, request, "1", interrupted_effect=BEGUN if resumed else None, now=NOW)


def test_an_approval_of_one_evidence_is_none_of_another(env: World) -> None:
    request = approved(env, evidence())
    other = request_over(evidence(trained=TRAINED.model_copy(update={"model_digest": "x" * 64})))
    with pytest.raises(Refusal, match="was changed after it was read"):
        verify_approval(env, other, "1", interrupted_effect=None, now=NOW)
    with pytest.raises(Refusal, match="was changed after it was read"):
        verify_approval(env, replace(request, evidence=other.evidence), "1", interrupted_effect=None, now=NOW)


@pytest.mark.parametrize(("serving", "shown"), [("3", "3"), ("", "none")], ids=["another", "none"])
def test_an_approval_against_another_champion_has_lapsed(env: World, serving: str, shown: str) -> None:
    request = approved(env, evidence())
    with pytest.raises(Refusal, match=rf"champion has changed .*from 1.*{shown}"):
        verify_approval(env, request, serving, interrupted_effect=None, now=NOW)


@pytest.mark.parametrize("tier", ["development", "staging"])
def test_a_model_of_a_sample_is_never_deployed(env: World, tier: str) -> None:
    request = approved(env, replace(evidence(), tier=tier))
    with pytest.raises(Refusal, match=rf"only a model trained on the full tier.*{tier} tier, pass"):
        verify_approval(env, request, "1", interrupted_effect=None, now=NOW)


@pytest.mark.parametrize("outcome", ["hold", "inconclusive"])
def test_a_model_that_did_not_pass_is_never_deployed(env: World, outcome: str) -> None:
    request = approved(env, evidence(judged=JUDGED.model_copy(update={"verdict": outcome})))
    with pytest.raises(Refusal, match=rf"full tier, {outcome}"):
        verify_approval(env, request, "1", interrupted_effect=None, now=NOW)


def test_an_approval_that_was_used_is_none_after_the_version_was_taken_back(env: World) -> None:
    request = approved(env, evidence())
    done = replace(BEGUN, state="done", outcome="version 2 served")
    with pytest.raises(Refusal, match="was already used"):
        verify_approval(env, request, "1", interrupted_effect=done, now=NOW)
    assert verify_approval(env, request, request.version, interrupted_effect=done, now=NOW) == evidence()


def test_a_deployment_that_was_interrupted_after_it_served_may_go_on(env: World) -> None:
    request = approved(env, evidence())
    assert verify_approval(env, request, request.version, interrupted_effect=BEGUN, now=NOW) == evidence()


def test_a_version_that_serves_without_an_interrupted_deployment_is_another_champion(env: World) -> None:
    request = approved(env, evidence())
    with pytest.raises(Refusal, match="champion has changed"):
        verify_approval(env, request, request.version, interrupted_effect=None, now=NOW)


def test_an_interrupted_deployment_does_not_go_on_over_a_third_champion(env: World) -> None:
    request = approved(env, evidence())
    with pytest.raises(Refusal, match="champion has changed"):
        verify_approval(env, request, "3", interrupted_effect=BEGUN, now=NOW)


def challenger(env: World) -> tuple[ApprovalRequest, Evidence]:
    """Register versions 1 and 2 of `price`, and request approval of the second."""
    register(env, {"rooms": 1.0})
    version = register(env, {"rooms": 2.0}).version
    digest = folder_digest(artifact_of(env, version))
    shown = evidence(trained=TRAINED.model_copy(update={"version": version, "model_digest": digest}))
    return request_over(shown), shown


def test_the_files_on_this_machine_are_served_when_they_are_those_that_were_approved(env: World) -> None:
    request, shown = challenger(env)
    env.tracking().available = False  # type: ignore[attr-defined]
    assert folder_digest(approved_files(env, request, shown)) == shown.model_digest


def test_files_that_this_machine_does_not_have_come_from_the_registry(env: World, tmp_path: Path) -> None:
    request, shown = challenger(env)
    there = env.model_copy(update={"scratch": tmp_path / "another machine"})
    files = approved_files(there, request, shown)
    assert files.is_relative_to(tmp_path / "another machine")
    assert folder_digest(files) == shown.model_digest


@pytest.mark.parametrize("where", ["here", "registry"])
def test_files_that_were_changed_after_the_approval_are_refused(env: World, tmp_path: Path, where: str) -> None:
    request, shown = challenger(env)
    if where == "here":
        changed = artifact_of(env, request.version)
    else:
        env = env.model_copy(update={"scratch": tmp_path / "another machine"})
        changed = tmp_path / "runs" / "run-2" / "model"
    (changed / MODEL_FILE).write_text('{"rooms": -2.0}')
    with pytest.raises(Refusal, match=r"(?s)price version 2.*not the approved ones.*retrain"):
        approved_files(env, request, shown)


def releases(folder: Path) -> tuple[Release, Release]:
    """Return two releases of one endpoint, each with its own artifact."""
    made = []
    for version in ("1", "2"):
        artifact = folder / version
        artifact.mkdir()
        (artifact / "weights").write_text(version)
        made.append(Release("price", version, artifact, folder_digest(artifact), GOLDEN))
    return made[0], made[1]


def in_service(env: World, release: Release, before: str = "") -> tuple[str, ProbeResult]:
    """Deploy an approved release."""
    shown = evidence(
        trained=TRAINED.model_copy(update={"version": release.version, "model_digest": release.digest}),
        judged=JUDGED if before else FIRST,
    )
    return switch_and_record(env, approved(env, shown), release, before)


def lines(env: World) -> list[tuple[str, str, str]]:
    return [(line.version, line.action, line.status) for line in env.effects().deployments("price", "local")]


def served(env: World) -> str:
    now = env.endpoint().live_version("price")
    return now.version if now else ""


def world_with(tmp_path: Path, **knobs: Any) -> tuple[World, Release]:
    """Return an environment in which version 1 is deployed, and the release of version 2."""
    env = World.at(tmp_path, **knobs)
    register(env, {"rooms": 1.0})
    register(env, {"rooms": 2.0})
    one, two = releases(tmp_path)
    in_service(env, one)
    return env, two


def test_an_approved_version_serves_and_bears_the_alias_and_stands_in_the_ledger(tmp_path: Path) -> None:
    env, two = world_with(tmp_path)
    assert in_service(env, two, before="1")[0] == "fake://price"
    assert served(env) == "2"
    champion = env.tracking().version("price", "@champion")
    assert champion is not None
    assert champion.version == "2"
    assert lines(env) == [("2", "deploy", "serving"), ("1", "deploy", "serving")]
    line = env.effects().deployments("price", "local")[0]
    assert (line.by, line.reason, line.digest) == ("max@example.com", "it is better", two.digest)
    assert line.request_id == "price-2"


TROUBLE: dict[str, tuple[dict[str, Any], str]] = {
    "refused by preflight": ({"reject_versions": ("2",)}, "refused"),
    "wrong answers once live": ({"wrong_answer_versions": ("2",)}, "predictions"),
}


@pytest.mark.parametrize(("knobs", "problem"), TROUBLE.values(), ids=TROUBLE)
def test_a_version_that_does_not_serve_as_it_should_leaves_the_one_before_it(
    tmp_path: Path, knobs: dict[str, Any], problem: str
) -> None:
    env, two = world_with(tmp_path, **knobs)
    with pytest.raises(Rejected, match=problem):
        in_service(env, two, before="1")
    assert served(env) == "1"
    assert lines(env) == [("2", "deploy", "failed"), ("1", "deploy", "serving")]
    assert problem in env.effects().deployments("price", "local")[0].reason
    champion = env.tracking().version("price", "@champion")
    assert champion is not None
    assert champion.version == "1"


def test_files_damaged_on_the_way_leave_the_version_before(tmp_path: Path) -> None:
    env, two = world_with(tmp_path)
    (two.artifact / "weights").write_text("damaged")
    with pytest.raises(Corrupt):
        in_service(env, two, before="1")
    assert served(env) == "1"
    assert lines(env)[0] == ("2", "deploy", "failed")


def test_a_first_version_that_preflight_refuses_is_never_live(tmp_path: Path) -> None:
    env = World.at(tmp_path, reject_versions=("1",))
    register(env, {"rooms": 1.0})
    with pytest.raises(Rejected):
        in_service(env, releases(tmp_path)[0])
    assert served(env) == ""
    assert lines(env) == [("1", "deploy", "failed")]


def test_a_first_version_that_answers_wrongly_is_withdrawn_and_no_champion(tmp_path: Path) -> None:
    env = World.at(tmp_path, wrong_answer_versions=("1",))
    register(env, {"rooms": 1.0})
    with pytest.raises(Rejected, match="predictions"):
        in_service(env, releases(tmp_path)[0])
    assert served(env) == ""
    assert lines(env) == [("1", "deploy", "failed")]
    assert env.tracking().version("price", "@champion") is None


def test_the_ledger_says_what_was_wrong_even_when_the_version_before_cannot_be_restored(tmp_path: Path) -> None:
    env = World.at(tmp_path, wrong_answer_versions=("2",))
    with pytest.raises(TerminalError):
        in_service(env, releases(tmp_path)[1], before="1")  # which this endpoint does not have
    (line,) = env.effects().deployments("price", "local")
    assert "predictions" in line.reason


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the thread that warms up
def test_a_registry_that_is_away_fails_nothing_and_the_next_try_tells_it(tmp_path: Path) -> None:
    env, two = world_with(tmp_path)
    env.tracking().available = False  # type: ignore[attr-defined]  - goes down after the switch
    in_service(env, two, before="1")
    assert (served(env), lines(env)[0]) == ("2", ("2", "deploy", "serving"))
    env.tracking().available = True  # type: ignore[attr-defined]
    in_service(env, two, before="1")
    assert lines(env) == [("2", "deploy", "serving"), ("1", "deploy", "serving")]
    champion = env.tracking().version("price", "@champion")
    assert champion is not None and champion.version == "2"


def test_a_second_switch_after_a_kill_changes_nothing_and_needs_no_second_preflight(tmp_path: Path) -> None:
    env, two = world_with(tmp_path)
    endpoint: Any = env.endpoint()
    switch_and_verify(endpoint, two, "1")
    first = endpoint.live_version("price")
    endpoint.reject_versions = ("2",)  # would make a second preflight fail
    assert switch_and_verify(endpoint, two, "1")[0] == first.url
    assert endpoint.live_version("price") == first


def test_the_same_version_with_other_files_is_not_taken_for_the_one_that_serves(tmp_path: Path) -> None:
    env, two = world_with(tmp_path)
    switch_and_verify(env.endpoint(), two, "1")
    (two.artifact / "weights").write_text("other")
    with pytest.raises(Rejected, match="another digest"):
        switch_and_verify(env.endpoint(), replace(two, digest=folder_digest(two.artifact)), "1")
    assert served(env) == "2"


def test_a_deployment_run_twice_leaves_one_line(tmp_path: Path) -> None:
    env, two = world_with(tmp_path)
    in_service(env, two, before="1")
    in_service(env, two, before="1")
    assert lines(env) == [("2", "deploy", "serving"), ("1", "deploy", "serving")]


def test_a_golden_request_is_read_back_from_the_ledger_as_it_was() -> None:
    golden = GoldenExample('{"instances": ["größer"]}', "[[0.25, 0.75]]", 1e-6)
    assert GoldenExample(**json.loads(golden_json(golden))) == golden


def test_the_endpoint_logs_what_model_yaml_lets_it() -> None:
    spec = parse_spec(BINARY, "model.yaml")
    assert inference_log_rules(spec) == InferenceLogPolicy(entity_column=spec.data.entity)
    limited = parse_spec(f"{BINARY}\ninference_log: {{exclude: [rooms], hash: [street]}}\n", "model.yaml")
    assert inference_log_rules(limited) == InferenceLogPolicy(spec.data.entity, ("rooms",), ("street",))
    assert inference_log_rules(parse_spec(f"{BINARY}\ninference_log: {{enabled: false}}\n", "model.yaml")) is None


CUT_OFF = {"cut_off": "2026-03-02T00:00:00+00:00", "trained_until": "2026-03-01T00:00:00+00:00"}
BY_TIME = DATA.model_copy(
    update={**CUT_OFF, "holdout_rule": HoldoutRule("time", 0.2, gap_days=1.0, time="sold_at").text}
)


def approved_with_tags(env: World, data: TierData, tags: dict[str, str]) -> ApprovalRequest:
    """Register version 1 with these tags, and let a second person approve it with the data's rule and cut-off."""
    tracking: Any = env.tracking()
    run = tracking.open_run("price", key="1", name="test")
    tracking.log_model(run.id, {"rooms": 1.0})
    tracking.register("price", run.id, key="1", tags=tags)
    digest = folder_digest(artifact_of(env, "1"))
    trained = TRAINED.model_copy(update={"version": "1", "model_digest": digest})
    return approved(env, evidence(data, trained=trained, judged=FIRST))


def tags_of(data: TierData) -> dict[str, str]:
    return {
        key: value for key, value in version_tags(data, CodeProvenance(commit="c", patch_digest="")).items() if value
    }


@pytest.mark.parametrize("data", [DATA, BY_TIME], ids=["by entity", "by time"])
def test_a_version_whose_recorded_cut_off_is_the_approved_one_is_deployed(env: World, data: TierData) -> None:
    request = approved_with_tags(env, data, tags_of(data))
    assert approved_release(env, request, "", GOLDEN, begun=None, now=NOW).version == "1"


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        pytest.param("trained_until", "2026-01-01T00:00:00+00:00", id="an earlier training"),
        pytest.param("trained_until", "", id="no training time"),
        pytest.param("cut_off", "2026-06-01T00:00:00+00:00", id="another cut-off"),
        pytest.param("holdout", "0.2", id="another rule"),
        pytest.param("holdout", "", id="no rule"),
    ],
)
def test_a_version_whose_recorded_cut_off_is_another_is_not_deployed(env: World, tag: str, value: str) -> None:
    changed = {**tags_of(BY_TIME), f"ratchet.{tag}": value}
    request = approved_with_tags(env, BY_TIME, {key: each for key, each in changed.items() if each})
    with pytest.raises(Refusal, match=rf"version 1, tag ratchet\.{tag}: .*not the approved one.*restore the tag"):
        approved_release(env, request, "", GOLDEN, begun=None, now=NOW)


def test_evidence_of_an_earlier_release_needs_no_rule(env: World) -> None:
    old = DATA.model_copy(update={"holdout_rule": ""})
    request = approved_with_tags(env, old, {"ratchet.holdout": "0.2"})
    assert approved_release(env, request, "", GOLDEN, begun=None, now=NOW).version == "1"
