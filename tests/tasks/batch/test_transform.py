"""Batch inference by batch transform: the same rows as in the flow run, paid once, and nothing partial remains."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from prefect.logging import disable_run_logger

from blocks.batch_inference.base import BatchInference
from blocks.batch_inference.fake import FakeBatchInference
from blocks.common.errors import JobFailed, NotFound
from blocks.lake.base import Snapshot
from blocks.lake.fake import FakeLake
from blocks.records.compute import Compute
from blocks.tracking.mlflow import MlflowTracking
from local.sagemaker.faults import Fault
from runtime.digests import folder_digest
from tasks.batch.input import InferenceInput
from tasks.batch.predictor import Predictor
from tasks.batch.rules import transform as rules
from tasks.batch.rules.transform import BatchPlacement
from tasks.batch.tasks import append_predictions
from tasks.batch.transform import CHEAPER_BATCH_REMEDY, batch_job_name, predict_by_batch_job, price_placement
from tasks.shared.models import TeamModel
from tasks.shared.rules.cost.budget import WorstCaseCost, check_budget
from tasks.shared.rules.cost.spent import COST_METRIC, FAILED_COST_METRIC, WORST_CASE_TAG
from tasks.shared.rules.model.data import DataSpec
from tasks.shared.rules.model.parts import BudgetSpec
from tasks.shared.rules.refusal import Refusal
from tests.checkout import ROOT
from tests.fakes.environment import SPEC, World
from tests.fixtures.batch_inference import sagemaker_transform
from tests.fixtures.batch_scoring import DATA, HOUSES, WEIGHTS, as_csv, folder_of, made, positions, predictions
from tests.fixtures.costs import NOW, PRICES
from tests.fixtures.local_aws import SageMakerLab
from tests.fixtures.scoring import churn_model
from tests.fixtures.signing_keys import MODELS
from tests.fixtures.sources import input_from_source

NAME = SPEC.name
PAID = Compute(("ml.m5.large",), "us-east-1")
PLACE = BatchPlacement("transform", "a test says so", 120)
WORST_CASE = WorstCaseCost(0.02, "0.02 USD", is_paid=True)


def house(row: list[Any]) -> float:
    """Predict as `FakeTracking` does: the weighted sum of the numbers, of rooms, street, garden."""
    return float(row[0] * WEIGHTS["rooms"] + row[2] * WEIGHTS["garden"])


@pytest.fixture
def env(tmp_path: Path) -> World:
    return World.at(tmp_path).model_copy(update={"batch_inference_adapter": "transform"})


def with_transform(env: World, transform: BatchInference) -> World:
    env._adapters["transform"] = transform
    return env


def by_transform(
    env: World, predictor: Predictor, worst: WorstCaseCost = WORST_CASE
) -> Callable[[InferenceInput, str, Path], None]:
    def predict(rows: InferenceInput, asked: str, to: Path) -> None:
        with disable_run_logger():
            predict_by_batch_job(env, NAME, rows, asked, predictor, PLACE, worst, to)

    return predict


def scored(env: World, lake: FakeLake, predictor: Predictor, tmp_path: Path) -> Snapshot:
    rows = input_from_source(predictor.data, *as_csv(tmp_path), folder_of(tmp_path))
    return append_predictions(
        lake, rows, predictor, lambda _rows: None, tmp_path / "work", by_transform(env, predictor)
    )


def priced(env: World, rows: int, **budget: float) -> Any:
    model = TeamModel(Path(), SPEC.model_copy(update={"budget": BudgetSpec(**budget)}))
    place, bill = price_placement(env, model, rows, PRICES, NOW)
    check_budget(bill, model.spec.budget, NAME, CHEAPER_BATCH_REMEDY)
    return place, bill


def test_many_rows_are_priced_and_refused_above_the_budget_or_without_a_price(env: World) -> None:
    machines = with_transform(env, FakeBatchInference(fixed_compute=PAID, rows_per_second=1e5))
    place, bill = priced(machines, 10**9, per_run_usd=2.0, per_month_usd=5.0)
    assert place.target == "transform"
    assert bill.run.usd == pytest.approx(0.115 * place.max_seconds / 3600)
    with pytest.raises(Refusal, match=r"Use a cheaper instance, or remove \[batch_inference\] from"):
        priced(machines, 10**9)
    with pytest.raises(Refusal, match="no price for this instance type for transform"):
        priced(
            with_transform(
                env, FakeBatchInference(fixed_compute=replace(PAID, instance_types=("ml.z1",)), rows_per_second=1e5)
            ),
            10**9,
        )


def test_the_month_so_far_counts_what_scoring_cost(env: World) -> None:
    run = env.tracking().open_run(NAME, key="k", name="earlier")
    env.tracking().log(run.id, metrics={COST_METRIC: 4.5})
    env.tracking().close_run(run.id, "FINISHED")
    machines = with_transform(env, FakeBatchInference(fixed_compute=PAID, rows_per_second=1e5))
    with pytest.raises(Refusal, match=r"so far 4\.50"):
        priced(machines, 10**9, per_run_usd=2.0, per_month_usd=5.0)


def test_few_rows_are_free_and_need_no_budget(env: World) -> None:
    place, bill = priced(with_transform(env, FakeBatchInference(fixed_compute=PAID)), 500)
    assert (place.target, bill.run.is_paid) == ("flow", False)


def test_predictions_are_joined_to_their_keys_and_the_cost_is_logged(
    env: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "MAX_REQUEST_ROWS", 37)
    predictor, lake = made(tmp_path / "tracking", regression()), FakeLake()
    transform = FakeBatchInference(fixed_compute=PAID, billable_seconds=36.0).with_predictions(house)
    kept = scored(with_transform(env, transform), lake, predictor, tmp_path)
    by_key = dict(
        zip(predictions(lake)["house_id"].to_pylist(), predictions(lake)["prediction"].to_pylist(), strict=True)
    )
    wanted = {key: house([rooms, None, garden]) for key, rooms, garden in
              HOUSES[["house_id", "rooms", "garden"]].itertuples(index=False)}  # fmt: skip
    assert kept.rows == 500 and by_key == wanted
    (run,) = env.tracking().runs(NAME)
    assert run.status == "FINISHED" and run.metrics[COST_METRIC] == pytest.approx(0.115 / 100)
    assert run.tags[WORST_CASE_TAG] == "0.020000" and run.tags["ratchet.batch_inference_job"] == transform.started[0]


def regression() -> DataSpec:
    return DATA.model_copy(update={"classes": ()})


def test_a_job_that_fails_is_paid_leaves_nothing_and_is_tried_anew_under_one_run(env: World, tmp_path: Path) -> None:
    predictor, lake = made(tmp_path / "tracking", regression()), FakeLake()
    with_transform(
        env, FakeBatchInference(fixed_compute=PAID, billable_seconds=36.0, failing_attempts=1).with_predictions(house)
    )
    with pytest.raises(JobFailed):
        scored(env, lake, predictor, tmp_path)
    with pytest.raises(NotFound):
        lake.as_of("houses-predictions")
    (failed,) = env.tracking().runs(NAME)
    assert failed.status == "FAILED" and failed.metrics[FAILED_COST_METRIC] == pytest.approx(0.115 / 100)
    assert scored(env, lake, predictor, tmp_path).rows == 500
    (run,) = env.tracking().runs(NAME)
    assert run.status == "FINISHED" and run.metrics[COST_METRIC] == pytest.approx(0.23 / 100)


class Earlier(FakeBatchInference):
    """A transform whose job was submitted before positions were kept beside the requests."""

    _block_type_slug = "ratchet-transform-earlier"

    def responses(self, name: str) -> Any:
        for carried, body in super().responses(name):
            yield carried.select(["house_id", "_bucket"]), body


def test_a_job_from_before_positions_were_kept_is_finished_without_them(env: World, tmp_path: Path) -> None:
    lake = FakeLake()
    transform = Earlier(fixed_compute=PAID).with_predictions(house)
    assert scored(with_transform(env, transform), lake, made(tmp_path / "tracking", regression()), tmp_path).rows == 500
    assert set(positions(lake).values()) == {(None, None)}


class Lossy(FakeBatchInference):
    """A transform whose last response has one row too few."""

    _block_type_slug = "ratchet-transform-lossy"

    def responses(self, name: str) -> Any:
        *whole, (carried, body) = super().responses(name)
        yield from whole
        yield carried, body.replace(b"[0.5, ", b"[", 1)


def test_answers_that_are_not_one_a_row_are_refused_whole(env: World, tmp_path: Path) -> None:
    lake = FakeLake()
    with pytest.raises(Refusal, match="answered 500 rows"):
        scored(with_transform(env, Lossy()), lake, made(tmp_path / "tracking", regression()), tmp_path)
    with pytest.raises(NotFound):
        lake.as_of("houses-predictions")


def test_the_name_of_a_job_is_of_rows_and_version_and_one_that_sagemaker_takes(tmp_path: Path) -> None:
    rows = input_from_source(DATA, *as_csv(tmp_path), folder_of(tmp_path))
    assert batch_job_name("a_long-" * 9, rows, "3").startswith("a-long-a-long-a-long-a-lon-batch-")
    assert (
        batch_job_name("price", rows, "3") == batch_job_name("price", rows, "3") != batch_job_name("price", rows, "4")
    )
    assert batch_job_name("price", rows, "3") != batch_job_name("price", replace(rows, digest="other"), "3")
    one, other = (batch_job_name(f"price--feature-price-l-{number * 8}", rows, "3") for number in "12")
    assert one != other and len(one) <= 50, "two namespaces, of which the end tells which is which"


PEOPLE = DataSpec(
    dataset="people", entity="who", target="left", classes=("No", "Yes"),
    features={"tenure": "number", "charges": "number", "flag": "flag", "contract": "category"},
)  # fmt: skip


def people(count: int) -> pd.DataFrame:
    """Return rows of 300 people, with many digits, missing numbers, and text that was never seen in training."""
    random = np.random.default_rng(11)
    charges = random.normal(60, 20, count)
    charges[::7] = np.nan
    return pd.DataFrame({
        "who": [f"p{number % 300}" for number in range(count)], "tenure": random.uniform(0, 72, count), "charges": charges,
        "flag": random.integers(0, 2, count), "contract": random.choice(["month", "year", "żywot \"1\"\n"], count),
    })  # fmt: skip


@pytest.mark.slow
def test_batch_transform_answers_as_the_flow_run_does_row_for_row_to_the_last_bit(
    desk: SageMakerLab, env: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "MAX_REQUEST_ROWS", 300)
    artifact = churn_model(tmp_path / "model", trees=20)
    tracking = MlflowTracking(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db", trusted_keys=[MODELS.public_key_line])
    predictor = Predictor(tracking, artifact, folder_digest(artifact), PEOPLE, "3")
    people(1000).to_parquet(tmp_path / "people.parquet", index=False)
    transform = sagemaker_transform(desk, image="ratchet:test")
    tables = []
    for number, predict in enumerate((None, by_transform(with_transform(env, transform), predictor))):
        lake, folder = FakeLake(), folder_of(tmp_path, f"work-{number}")
        rows = input_from_source(PEOPLE, str(tmp_path / "people.parquet"), "", folder)
        assert append_predictions(lake, rows, predictor, lambda _rows: None, folder, predict).rows == 1000
        tables.append(lake.read(lake.as_of("people-predictions")).sort_by("_source_row"))
    assert tables[0].equals(tables[1])
    assert tables[1]["who"].to_pylist() == [f"p{number % 300}" for number in range(1000)]
    assert tables[1]["_source_row"].to_pylist() == list(range(1, 1001))
    (run,) = env.tracking().runs(NAME)
    assert run.metrics[COST_METRIC] > 0 and run.status == "FINISHED"


SCORER = """
import sys
from pathlib import Path
from tests.tasks.batch import test_transform as tests
folder, url, bucket = Path(sys.argv[1]), *sys.argv[2:]
tests.score_on_sagemaker(folder, url, bucket)
"""


def score_on_sagemaker(folder: Path, url: str, bucket: str) -> Snapshot:
    """Predict the houses on the local SageMaker into a lake on disk; the container predicts 0.5 for each row."""
    from blocks.batch_inference.sagemaker import SageMakerBatchInference
    from blocks.lake.local import LocalLake
    from local.sagemaker.settings import ROLE

    transform = SageMakerBatchInference(
        bucket=bucket, endpoint_url=url, region="us-east-1", poll_seconds=0.05, role_arn=ROLE, image="tiny",
        trusted_keys=[MODELS.public_key_line],
    )  # fmt: skip
    env = with_transform(
        World.at(folder / "world").model_copy(update={"batch_inference_adapter": "transform"}), transform
    )
    artifact = folder / "model"
    predictor = Predictor(env.tracking(), artifact, folder_digest(artifact), regression(), "3")
    work = folder_of(folder, f"work-{os.getpid()}")
    rows = input_from_source(regression(), str(folder / "houses.csv"), "", work)
    lake = LocalLake(root=folder / "lake")
    return append_predictions(lake, rows, predictor, lambda _rows: None, work, by_transform(env, predictor))


@pytest.mark.slow
def test_a_scoring_that_is_killed_leaves_no_snapshot_and_the_next_one_attaches_and_pays_once(
    desk: SageMakerLab, tmp_path: Path
) -> None:
    from blocks.lake.local import LocalLake
    from tests.fixtures.batch_inference import tiny_model

    as_csv(tmp_path)
    tiny_model(tmp_path)
    (tmp_path / "model" / "answers.json").write_text('{"requests": {"*": %s}}' % ([0.5] * 500))
    rows = input_from_source(regression(), str(tmp_path / "houses.csv"), "", folder_of(tmp_path))
    name = batch_job_name(NAME, rows, "3")
    desk.server.faults.add(Fault("stuck", match=name))

    def started() -> list[str]:
        found = desk.sagemaker.list_transform_jobs(NameContains=name)["TransformJobSummaries"]
        return [each["TransformJobName"] for each in found]

    command = [sys.executable, "-c", SCORER, str(tmp_path), desk.server.url, desk.bucket]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    desk.until(started, lambda found: found or process.poll() is not None, 60)
    assert process.poll() is None, process.communicate()[0].decode()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    lake = LocalLake(root=tmp_path / "lake")
    with pytest.raises(NotFound):
        lake.as_of("houses-predictions")
    desk.server.faults.clear()
    kept = score_on_sagemaker(tmp_path, desk.server.url, desk.bucket)
    assert kept.rows == 500 and lake.as_of("houses-predictions").rows == 500
    assert started() == [name], "a second job was paid for"
    assert score_on_sagemaker(tmp_path, desk.server.url, desk.bucket) == kept
