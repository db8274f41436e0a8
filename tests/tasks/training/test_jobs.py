"""Training jobs: each gets its training rows and hyperparameters, no holdout, and tags that say what made it."""

import json
import platform
from pathlib import Path
from typing import Any

import pytest

from blocks.common.errors import JobFailed, NotFound
from blocks.tracking.fake import FakeTracking
from blocks.trainers.fake import FakeTrainer
from blocks.trainers.job_checks import checked_program
from runtime.signatures import NO_ROW_KEY, RowKey, verify_folder
from tasks.shared.models import TeamModel
from tasks.shared.records import CodeProvenance, TierData
from tasks.shared.rules.model.spec import parse_spec
from tasks.shared.rules.refusal import Refusal
from tasks.training.jobs import open_training_run, resolve_hyperparameters, sign_model, training_job, version_tags
from tests.fakes.environment import SPEC, World
from tests.fixtures.approval_requests import DATA
from tests.fixtures.signing_keys import MODELS, signed
from tests.fixtures.spec_cases import BINARY

MADE_BY = CodeProvenance(commit="c" * 40, patch_digest="")
DIRTY = CodeProvenance(commit="c" * 40, patch_digest="p" * 64, patch="+SEED = 1\n")


@pytest.fixture
def model(tmp_path: Path) -> TeamModel:
    folder = tmp_path / "models" / "price"
    folder.mkdir(parents=True)
    (folder / "train.py").write_text("print('training')\n")
    return TeamModel(folder, SPEC)


@pytest.fixture
def data(tmp_path: Path) -> TierData:
    for part in ("train", "holdout"):
        (tmp_path / "tier" / part).mkdir(parents=True)
        (tmp_path / "tier" / part / "rows.parquet").write_text(part)
    return DATA.model_copy(update={"folder": tmp_path / "tier"})


def test_parameters_are_those_of_the_file_with_its_seed_as_text(model: TeamModel) -> None:
    assert resolve_hyperparameters(model, {}) == {"trees": "100", "rate": "0.1", "loss": "squared", "seed": "7"}


@pytest.mark.parametrize(
    ("given", "name", "text"),
    [({"trees": 5}, "trees", "5"), ({"rate": 1e-05}, "rate", "1e-05"), ({"seed": 8}, "seed", "8")],
    ids=["whole", "small", "seed"],
)
def test_given_parameters_replace_those_of_the_file(
    model: TeamModel, given: dict[str, Any], name: str, text: str
) -> None:
    assert resolve_hyperparameters(model, given) == {**resolve_hyperparameters(model, {}), name: text}
    assert float(text) == float(given[name])


def test_an_unknown_parameter_is_refused_with_those_that_are_known(model: TeamModel) -> None:
    with pytest.raises(Refusal, match=r"parameters of price.*'treees'.*loss, rate, seed, trees"):
        resolve_hyperparameters(model, {"trees": 5, "treees": 5})


@pytest.mark.parametrize(
    "given",
    [{"seed": "abc"}, {"seed": 8.5}, {"seed": True}, {"seed": -1}, {"trees": "many"}, {"rate": float("nan")}],
    ids=["seed as text", "half a seed", "seed is true", "seed below 0", "text for a number", "nan"],
)
def test_a_parameter_of_another_kind_is_refused_before_anything_is_trained(
    model: TeamModel, given: dict[str, Any]
) -> None:
    with pytest.raises(Refusal):
        resolve_hyperparameters(model, given)


def a_job(model: TeamModel, data: TierData, **changes: Any) -> Any:
    return training_job(model, data, {"seed": "7"}, {"MLFLOW_RUN_ID": "run-1"}, **{"name": "price-run-1", **changes})


def test_a_training_job_gets_the_rows_that_train_and_no_others(model: TeamModel, data: TierData) -> None:
    job = a_job(model, data)
    assert dict(job.channels) == {"train": data.train}
    seen = [path for folder in job.channels.values() for path in folder.rglob("*") if path.is_file()]
    assert [path.read_text() for path in seen] == ["train"]
    assert str(data.holdout) not in repr(job)


def test_a_training_job_is_the_models_program_within_its_limits(model: TeamModel, data: TierData) -> None:
    job = a_job(model, data)
    assert (job.program_folder, job.max_seconds, job.max_memory_mb) == (model.folder, 600, 1024)
    assert (dict(job.hyperparameters), dict(job.environment)) == ({"seed": "7"}, {"MLFLOW_RUN_ID": "run-1"})
    assert "train.py" in checked_program(job)


def test_a_trainer_takes_the_job_and_trains_with_the_parameters(
    model: TeamModel, data: TierData, tmp_path: Path
) -> None:
    told: list[str] = []
    done = FakeTrainer(root=tmp_path / "jobs", polls_in_progress=0).run(a_job(model, data), on_log_line=told.append)
    assert done.model_folder is not None
    assert json.loads((done.model_folder / "hyperparameters.json").read_text()) == {"seed": "7"}
    assert told == ["fake training"]


def test_a_job_that_fails_says_why(model: TeamModel, data: TierData, tmp_path: Path) -> None:
    trainer = FakeTrainer(root=tmp_path / "jobs", polls_in_progress=0, failing_attempts=1, reason="column rooms is bad")
    with pytest.raises(JobFailed, match=r"price-run-1 failed: column rooms is bad"):
        trainer.run(a_job(model, data), on_log_line=print)


def test_a_tier_that_is_gone_starts_no_job(model: TeamModel, data: TierData, tmp_path: Path) -> None:
    gone = data.model_copy(update={"folder": tmp_path / "gone"})
    with pytest.raises(NotFound, match="'train'"):
        FakeTrainer(root=tmp_path / "jobs").run(a_job(model, gone), on_log_line=print)


def test_a_limit_of_less_than_a_second_is_still_a_limit(model: TeamModel, data: TierData) -> None:
    """The check of the job must not raise, as it would for a limit of 0 s."""
    short = SPEC.model_copy(update={"training": SPEC.training.model_copy(update={"max_minutes": 0.01})})
    assert checked_program(a_job(TeamModel(model.folder, short), data))


def test_a_version_is_stamped_with_tier_snapshot_digests_and_holdout_rule() -> None:
    assert version_tags(DATA, MADE_BY) == {
        "ratchet.tier": "full",
        "ratchet.snapshot": DATA.as_of,
        "ratchet.data_digest": DATA.data_digest,
        "ratchet.tier_digest": DATA.digest,
        "ratchet.reread_as_of": DATA.reread_as_of,
        "ratchet.holdout": "0.2",
        "ratchet.commit": MADE_BY.commit,
        "ratchet.uncommitted_changes": "no",
    }
    assert version_tags(DATA, DIRTY)["ratchet.uncommitted_changes"] == "yes"
    current = DATA.model_copy(update={"values": "2"})
    assert version_tags(current, MADE_BY)["ratchet.values"] == "2", "the forms of values that it knows"


def test_a_run_knows_its_data_its_parameters_and_the_uncommitted_patch(
    model: TeamModel, data: TierData, tmp_path: Path
) -> None:
    tracking = FakeTracking(root=tmp_path / "runs")
    run = open_training_run(tracking, model, data, DIRTY, {"trees": "100", "seed": "7"}, key="flow:train")
    assert run.experiment == "price"
    assert version_tags(data, DIRTY).items() <= run.tags.items()
    (seen,) = tracking.datasets(run.id)
    assert (seen["name"], seen["digest"], seen["rows"]) == ("houses", data.digest, data.train_rows)
    assert data.as_of in str(seen["source"])
    files = tmp_path / "runs" / run.id / "files" / "provenance"
    assert json.loads((files / "hyperparameters.json").read_text()) == {"trees": "100", "seed": "7"}
    assert (files / "uncommitted.patch").read_text() == DIRTY.patch


def test_a_clean_checkout_keeps_no_patch_and_the_same_key_is_the_same_run(
    model: TeamModel, data: TierData, tmp_path: Path
) -> None:
    tracking = FakeTracking(root=tmp_path / "runs")
    first, again = (
        open_training_run(tracking, model, data, MADE_BY, {"seed": "7"}, key="flow:train") for _ in range(2)
    )
    assert first.id == again.id
    kept = {path.name: path for path in (tmp_path / "runs" / first.id).rglob("*.*")}
    assert set(kept) == {"runtime.json", "hyperparameters.json"}
    made_on = json.loads(kept["runtime.json"].read_text())
    assert made_on["Python"] == platform.python_version() and made_on["scikit-learn"], "on what it was made"


def test_a_trial_is_a_child_of_its_experiment(model: TeamModel, data: TierData, tmp_path: Path) -> None:
    tracking = FakeTracking(root=tmp_path / "runs")
    parent = open_training_run(tracking, model, data, MADE_BY, {}, key="flow:experiment")
    trial = open_training_run(tracking, model, data, MADE_BY, {}, key="flow:trial:0", parent=parent.id)
    assert [run.id for run in tracking.children(parent.id)] == [trial.id]


def test_a_model_s_signature_names_the_columns_that_identify_a_row(tmp_path: Path) -> None:
    env, artifact = World.at(tmp_path), tmp_path / "model"
    artifact.mkdir()
    (artifact / "MLmodel").write_text("flavors: {}")
    run = env.tracking().open_run("price", key="k", name="train")
    for text, key in (
        (BINARY, RowKey("house_id")),
        (BINARY.replace("  target:", "  time: sold_at\n  target:"), RowKey("house_id", "sold_at")),
    ):
        sign_model(env, TeamModel(Path(), parse_spec(text, "model.yaml")), run.id, "1", artifact, {})
        assert verify_folder(artifact, list(env.signing.trusted_model_keys)).row_key == key
    signed(artifact)
    assert verify_folder(artifact, [MODELS.public_key_line]).row_key == NO_ROW_KEY, "signed before keys were named"
