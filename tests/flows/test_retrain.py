"""The README's story as a user runs it: over the API, through the worker, on real data."""

import json
from base64 import b64encode
from html import unescape
from pathlib import Path

import httpx
import pytest

from blocks.environment import open_environment
from local.demo_data import monitoring_events, send_traffic
from local.stack import Stack
from tasks.evidence.verification import verify_pack
from tests.fixtures.command_line import ratchet
from tests.fixtures.support import (
    SMALL,
    WEAK,
    approvals,
    approve,
    customers,
    deployments_of,
    ingest_frame,
    outcome,
    predict,
    request_of,
    run,
)

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(900)]
FEATURES = [name for name in customers().columns if name not in ("customer_id", "churn")]


def test_the_whole_story(stack: Stack, tmp_path: Path) -> None:  # noqa: PLR0915
    rows = customers()
    ingest_frame("churn", rows[:2000], tmp_path, "first.csv")
    lake, tracking = open_environment("local").lake(), open_environment("local").tracking()
    first = lake.as_of("churn").id

    # the development tier trains, and is refused
    refused = run("retrain/retrain", model="churn", tier="development", requested_by="dana@example.com")
    assert outcome(refused) == "not_promotable"
    assert "only the development sample" in (refused.state.message or "")
    assert not deployments_of("churn")
    version = tracking.version("churn", "1")
    assert version is not None
    assert version.tags["ratchet.tier"] == "development"
    assert version.tags["ratchet.snapshot"] == first

    # the full tier passes its floors and waits; the requester may not approve; another person may
    waiting = run("retrain/retrain", model="churn", as_of=first, parameters=SMALL, requested_by="dana@example.com")
    assert outcome(waiting) == "Suspended"
    request = request_of(waiting)
    evidence = json.loads(request.evidence)
    assert any("First model" in reason for reason in evidence["reasons"])
    assert not deployments_of("churn")
    deployed = approve(waiting)
    assert outcome(deployed) == "deployed"
    champion = tracking.version("churn", "@champion")
    assert champion is not None
    assert champion.version == evidence["version"]
    answered, predictions = predict("churn", rows[FEATURES].head(2))
    assert answered == champion.version
    assert all(abs(sum(row) - 1) < 1e-9 for row in predictions)

    # more data, a better model: compared with the champion on the same rows
    landed = ingest_frame("churn", rows[2000:], tmp_path, "rest.csv")
    assert outcome(landed) == "Completed"
    assert lake.as_of("churn").rows == len(rows)
    assert lake.as_of("churn", first).rows == 2000
    better = run("retrain/retrain", model="churn", requested_by="dana@example.com")
    assert outcome(better) == "Suspended"
    assert json.loads(request_of(better).evidence)["champion_version"] == champion.version
    assert outcome(approve(better)) == "deployed"
    second = tracking.version("churn", "@champion")
    assert second is not None
    assert second.version != champion.version

    # maintenance of the lake changes no read
    before = lake.read(lake.as_of("churn", first))
    assert outcome(run("maintain_lake/maintain-lake", model="churn")) == "Completed"
    assert lake.read(lake.as_of("churn", first)).equals(before)

    # its evidence pack: every item, signed, in the folder and with its run; the record of decisions is valid
    env = open_environment("local")
    keys = list(env.signing.trusted_model_keys)
    assert verify_pack(env.evidence_folder / "churn" / second.version, keys).valid
    assert verify_pack(tracking.fetch_files(second.run_id, "evidence", tmp_path), keys).valid
    assert ratchet("audit", "verify").exit_code == 0

    # reproduced from the evidence pack alone
    made_again = run("reproduce/reproduce", model="churn", version=second.version)
    assert outcome(made_again) == "reproduced"
    assert "bit-identical" in (made_again.state.message or "")
    # inference requests are monitored: without a change, and with one
    features = rows[["customer_id", *FEATURES]].dropna()
    quiet = run("monitor/monitor", model="churn", **send_traffic(features))
    assert outcome(quiet) == "no_drift", quiet.state
    assert list(monitoring_events(quiet.id, seconds=1)) == []
    watched = run("monitor/monitor", model="churn", **send_traffic(features.assign(contract="Two year", tenure=60)))
    assert outcome(watched) == "drift", watched.state
    assert "contract" in (watched.state.message or "") and "tenure" in (watched.state.message or "")
    (event,) = monitoring_events(watched.id, seconds=120)
    assert (event.event, event.payload["severity"]) == ("model.drift.detected", "critical")
    assert event.payload["links"]["version's run"].startswith(stack.url("mlflow"))
    reports = files_of(second.run_id, f"monitoring/{watched.id}")
    assert {"report.html", "report.json", "report.md", "monitoring-report.json", "monitoring-report.png"} <= reports
    nothing = run("monitor/monitor", model="churn", until="2026-01-01T00:00:00Z")
    assert outcome(nothing).startswith("not_checked: Not checked: No request was logged before 2026-01-01"), (
        nothing.state
    )

    # a weakened challenger is held, one without a difference is inconclusive; the champion stays deployed
    held = run("retrain/retrain", model="churn", parameters=WEAK, requested_by="dana@example.com")
    assert outcome(held) == "held"
    assert "auc" in (held.state.message or "")
    same = run("retrain/retrain", model="churn", parameters={"seed": 8}, requested_by="dana@example.com")
    assert outcome(same) == "inconclusive"
    assert predict("churn", rows[FEATURES].head(1))[0] == second.version

    # rollback, in seconds
    back = run("rollback/rollback", model="churn", requested_by="max@example.com", reason="a test")
    assert outcome(back) == "rolled_back"
    assert predict("churn", rows[FEATURES].head(1)) == (champion.version, predictions[:1])
    again = tracking.version("churn", "@champion")
    assert again is not None
    assert again.version == champion.version
    assert [(line.action, line.status) for line in deployments_of("churn")] == [
        ("rollback", "serving"),
        ("deploy", "serving"),
        ("deploy", "serving"),
    ]
    assert approvals().open_requests("churn") == ()

    # all of it is on the model's dashboard, over HTTP and as a file
    page = httpx.get(f"{stack.url('endpoints')}/dashboards/churn", timeout=60).text
    assert page == (stack.state_folder / "dashboards" / "churn.html").read_text()
    assert f"Version {champion.version} is deployed;" in page and "confirmed by the endpoint" in page
    assert "rolled back by max@example.com" in page and "<b>second@example.com</b>" in page
    assert "Drift over time: 3 monitoring runs, 2 of them with findings; open alerts: 2" in page
    assert (watched.state.message or "no message")[:80] in unescape(page)
    assert "No traffic:" not in page and "retrain/churn-nightly" in page

    # batch predictions are a new snapshot; predicting the same rows again, from another file, adds none
    some = rows.drop(columns="churn")[:500]
    some.to_csv(tmp_path / "score.csv", index=False)
    some.to_parquet(tmp_path / "score.parquet", index=False)
    for name in ("score.csv", "score.parquet"):
        assert (
            outcome(run("batch_inference/batch-inference", model="churn", source=str(tmp_path / name))) == "Completed"
        )
    scored = lake.as_of("churn-predictions")
    assert (len(scored.snapshots), scored.rows) == (1, 500)
    assert set(lake.read(scored)["model_version"].to_pylist()) == {champion.version}
    broken = rows.drop(columns="churn")[:500].assign(tenure=-5)
    broken.to_csv(tmp_path / "broken.csv", index=False)
    bad = run("batch_inference/batch-inference", model="churn", source=str(tmp_path / "broken.csv"))
    assert "tenure" in outcome(bad)
    assert lake.as_of("churn-predictions").rows == 500

    # each run left readable artifacts
    shown = httpx.post(f"{stack.url('prefect')}/api/artifacts/latest/filter", json={}, headers=csrf(stack)).json()

    assert {
        "ingest",
        "validation",
        "evaluation",
        "evaluation-plot",
        "approval-request",
        "rollback",
        "maintain",
        "monitoring-churn",
        "monitoring-plot",
        "monitoring-evidently",
        "dashboard-churn",
    } <= {artifact["key"] for artifact in shown}


def files_of(run_id: str, under: str) -> set[str]:
    """Return the names of the files that MLflow stores with a run, below a folder."""
    import mlflow

    client = mlflow.MlflowClient(open_environment("local").tracking().tracking_uri)  # type: ignore[attr-defined]
    return {Path(file.path).name for file in client.list_artifacts(run_id, under)}


def csrf(stack: Stack) -> dict[str, str]:
    """Return the headers that the server requires of a browser."""
    secret = {"Authorization": f"Basic {b64encode(stack.prefect_secret.encode()).decode()}"}
    address = f"{stack.url('prefect')}/api/csrf-token"
    token = httpx.get(address, params={"client": "tests"}, headers=secret, timeout=60).json()
    return {"Prefect-Csrf-Token": token["token"], "Prefect-Csrf-Client": "tests", **secret}


def test_an_experiment_reads_no_holdout_and_its_best_parameters_train(stack: Stack, tmp_path: Path) -> None:
    assert outcome(ingest_frame("alpha", customers(), tmp_path)) == "Completed"
    done = run("experiment/experiment", model="alpha", trials=3, parallel=2)
    assert outcome(done) == "Completed"
    tracking = open_environment("local").tracking()
    children = [run for run in tracking.children(parent_of_trials("alpha")) if run.metrics]
    assert len(children) == 3
    assert all("validation_auc" in child.metrics for child in children)
    assert all(not name.startswith("holdout") for child in children for name in child.metrics)


def parent_of_trials(model: str) -> str:
    """Return the id of the parent run of the model's trials."""
    import mlflow

    client = mlflow.MlflowClient(open_environment("local").tracking().tracking_uri)  # type: ignore[attr-defined]
    experiment = client.get_experiment_by_name(model)
    runs = client.search_runs([experiment.experiment_id])
    return next(run.data.tags["mlflow.parentRunId"] for run in runs if "mlflow.parentRunId" in run.data.tags)
