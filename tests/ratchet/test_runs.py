"""The commands of run history: list runs by namespace, compare two, and repeat one."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from blocks.records.deployments import Deployment
from ratchet.commands.runs import code_difference_note, compared, listed, repeated, variables_of_same_code
from tasks.approval.rules.actions import Act, Actor
from tasks.evaluation.rules.metrics import higher_is_better
from tasks.shared.actions import sign_order
from tasks.shared.models import TeamModel
from tasks.shared.records import CodeProvenance
from tasks.shared.rules.refusal import Refusal
from tasks.training.jobs import open_training_run, resolve_hyperparameters
from tasks.training.rules.run_history import compare_runs
from tasks.training.run_history import find_training_run, repeat_parameters, training_runs
from tests.fakes.environment import NOW, SPEC, World
from tests.fixtures.approval_requests import DATA
from tests.fixtures.spec_cases import BINARY

CLEAN = CodeProvenance(commit="c" * 40, patch_digest="")
DIRTY = CodeProvenance(commit="d" * 40, patch_digest="p" * 64, patch="+SEED = 1\n")


@dataclass
class Desk:
    """An environment in which max and dana have trained `price`, and a checkout with that model."""

    env: World
    root: Path
    dana: str
    max: str

    def say(self, *arguments: str) -> str:
        does: Any = {"list": listed, "compare": compared}[arguments[0]]
        names = [each for each in arguments[1:] if each != "--json"]
        return str(does(self.env, *names, as_json="--json" in arguments, root=self.root))


def trained(env: World, who: str, metrics: Mapping[str, float], made_by: CodeProvenance = CLEAN, **given: Any) -> str:
    """Train in a person's namespace, as `train` and `evaluate` record it; return the run's id."""
    model, tracking = TeamModel(Path("price"), SPEC.model_copy(update={"name": f"price--{who}"})), env.tracking()
    run = open_training_run(tracking, model, DATA, made_by, resolve_hyperparameters(model, given), key="flow:train")
    tags = {
        "ratchet.requested_by": f"{who}@example.com",
        "ratchet.verdict": "pass",
        "ratchet.predictions_digest": "e" * 64,
    }
    tracking.log(run.id, metrics={f"holdout_{name}": value for name, value in metrics.items()}, tags=tags)
    tracking.log_model(run.id, {"rooms": 1.0})  # type: ignore[attr-defined] # of the fake
    tracking.close_run(run.id, "FINISHED")
    tracking.register(model.spec.name, run.id, key="flow:train", tags={})
    return run.id


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    env, folder = World.at(tmp_path), tmp_path / "checkout" / "models" / "price"
    env.namespaces = True
    folder.mkdir(parents=True)
    (folder / "model.yaml").write_bytes(BINARY if isinstance(BINARY, bytes) else BINARY.encode())
    one = trained(env, "dana", {"auc": 0.84, "log_loss": 0.41})
    other = trained(env, "max", {"auc": 0.86, "log_loss": 0.43}, made_by=DIRTY, trees=50, seed=11)
    line = Deployment("d", "price--max", "local", "1", "m" * 64, "deploy", "serving", "ann", "", "r", NOW)
    env.effects().record_deployment(line)
    return Desk(env, tmp_path / "checkout", one, other)


@pytest.mark.parametrize(
    ("of", "proved"),
    [({}, True), ({"model": "price"}, False), ({"target": "ingest"}, False), ({"action": "rollback"}, False)],
    ids=["its own", "another model", "another flow", "another action"],
)
def test_a_requester_is_proved_by_an_order_of_such_a_run_alone(desk: Desk, of: dict[str, Any], proved: bool) -> None:
    act = replace(Act("start", "local", "price--dana", "retrain"), **of)
    dana = Actor("dana@example.com", authenticated=True, roles=("approver",))
    order = sign_order(desk.env, act, dana, reason="a new tree", channel="gateway", now=NOW).order_id
    desk.env.tracking().log(desk.dana, tags={"ratchet.order": order})
    (run,) = [each for each in training_runs(desk.env, root=desk.root) if each.id == desk.dana]
    assert run.requested_by == "dana@example.com" + ("" if proved else " (not authenticated)")


def test_a_colleagues_runs_are_listed_with_all_that_says_what_they_are(desk: Desk) -> None:
    lines = desk.say("list", "price").splitlines()
    assert len(lines) == 3
    his, hers = (next(line for line in lines if who in line) for who in ("price--max", "price--dana"))
    for words in (desk.max, "max@example.com", "full", DATA.as_of[:32], "dddddddd+", "=0.8", "pass, deployed"):
        assert words in his, words
    assert "dana@example.com" in hers and "cccccccc " in hers and "deployed" not in hers
    assert desk.say("list") == desk.say("list", "price--dana") == desk.say("list", "price"), "all namespaces"


def test_a_list_leaves_out_the_trials_of_an_experiment_and_other_experiments(desk: Desk) -> None:
    model = TeamModel(Path("price"), SPEC)
    parent = open_training_run(desk.env.tracking(), model, DATA, CLEAN, {}, key="experiment")
    open_training_run(desk.env.tracking(), model, DATA, CLEAN, {}, key="trial", parent=parent.id)
    desk.env.tracking().open_run("notes", key="k", name="not ours")
    assert {run.id for run in training_runs(desk.env, root=desk.root)} == {desk.dana, desk.max, parent.id}


def test_a_list_as_json_has_everything(desk: Desk) -> None:
    his = next(run for run in json.loads(desk.say("list", "price", "--json")) if run["id"] == desk.max)
    assert (his["namespace"], his["version"], his["is_deployed"], his["metrics"]["auc"]) == ("max", "1", True, 0.86)
    assert his["commit"] == DIRTY.commit and his["has_uncommitted_changes"] is True and his["at"]


def test_nothing_trained_and_no_such_model_are_told(desk: Desk, tmp_path: Path) -> None:
    empty = World.at(tmp_path / "empty")
    assert "no training run yet" in listed(empty, "price", root=desk.root)
    with pytest.raises(Refusal, match="Did you mean 'price'"):
        desk.say("list", "prcie")


def test_two_runs_are_compared_and_each_metric_has_its_direction(desk: Desk) -> None:
    said = desk.say("compare", desk.dana, desk.max)
    lines = {line.split("  ")[0]: line for line in said.splitlines()}
    assert lines["metrics: auc"].endswith(f"better: {desk.max}")
    assert lines["metrics: log_loss"].endswith(f"better: {desk.dana}"), "less is better"
    assert "100" in lines["parameters: trees"] and "50" in lines["parameters: trees"]
    assert {"parameters: seed", "code: commit", "code: uncommitted changes", "who: model"} <= set(lines)
    assert "same data: tier full" in said, "what is the same is said once, in one line"
    assert said.count("full") == 1 and "data: tier" not in lines
    assert any(line.startswith("same environment: ") for line in lines)


def test_runs_that_predict_alike_are_identical_and_say_that_nothing_differs(desk: Desk) -> None:
    run = find_training_run(desk.env, desk.dana, desk.root)
    found = compare_runs(run, run, higher_is_better)
    assert found.identical and found.differences == ()
    assert "no differences" in desk.say("compare", desk.dana, desk.dana)
    assert json.loads(desk.say("compare", desk.dana, desk.dana, "--json"))["differences"] == []


def test_an_unknown_run_is_refused_with_the_nearest_and_a_beginning_is_enough(desk: Desk) -> None:
    with pytest.raises(Refusal, match=rf"no such run.*'{desk.max}0'.*Similar ids: run-"):
        find_training_run(desk.env, f"{desk.max}0", desk.root)
    with pytest.raises(Refusal, match=f"several run ids start like this.*{desk.dana}"):
        find_training_run(desk.env, "run-", desk.root)
    third = trained(desk.env, "eve", {"auc": 0.8})
    assert find_training_run(desk.env, third, desk.root).model == "price--eve"


def test_a_repeat_asks_for_exactly_what_was_recorded_in_the_other_namespace(desk: Desk) -> None:
    run = find_training_run(desk.env, desk.max, desk.root)
    order = repeat_parameters(desk.env, run, "dana", "dana@example.com", desk.root)
    assert order["model"] == "price--dana" and order["requested_by"] == "dana@example.com"
    assert (order["tier"], order["as_of"], order["environment"]) == ("full", DATA.as_of, "local")
    assert order["parameters"] == {**SPEC.training.parameters, "trees": 50, "seed": 11}
    assert {name: type(value) for name, value in order["parameters"].items() if name != "seed"} == {
        name: type(value) for name, value in SPEC.training.parameters.items()
    }, "numbers are numbers again"
    assert desk.max in order["trigger_reason"] and "max@example.com" in order["trigger_reason"]
    assert repeat_parameters(desk.env, run, "", "dana@example.com", desk.root)["model"] == "price"


def test_what_cannot_be_repeated_is_refused(desk: Desk) -> None:
    run = find_training_run(desk.env, desk.max, desk.root)
    with pytest.raises(Refusal, match="not a valid namespace"):
        repeat_parameters(desk.env, run, "Dana", "dana", desk.root)
    model = desk.root / "models" / "price" / "model.yaml"
    model.write_text(model.read_text().replace("trees:", "forests:"))
    with pytest.raises(Refusal, match=rf"not those of model\.yaml.*'trees'.*{DIRTY.commit}"):
        repeat_parameters(desk.env, run, "dana", "dana", desk.root)
    desk.env.namespaces = False
    with pytest.raises(Refusal, match="has no namespaces"):
        repeat_parameters(desk.env, run, "dana", "dana", desk.root)
    with pytest.raises(Refusal, match="the name of the requester is missing"):
        repeated(desk.env, desk.max, "", root=desk.root)


def test_another_commit_is_told_with_how_to_get_it(desk: Desk) -> None:
    his, hers = (find_training_run(desk.env, each, desk.root) for each in (desk.max, desk.dana))
    assert code_difference_note(hers, CLEAN) == ""
    told = code_difference_note(his, CLEAN)
    for words in (DIRTY.commit, CLEAN.commit, "git worktree add", "uncommitted.patch", "git apply"):
        assert words in told, words
    assert "--same-code" not in told, "that commit alone did not make it"
    assert "--same-code, or git worktree add" in code_difference_note(hers, DIRTY)
    assert "files of this checkout differ" in code_difference_note(
        hers, CodeProvenance(commit="c" * 40, patch_digest="p")
    )
    with pytest.raises(Refusal, match=r"not committed.*uncommitted\.patch"):
        variables_of_same_code(his, desk.root)
