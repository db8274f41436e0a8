"""Trials on the workers of a Dask cluster: a setting of the environment; nothing else of an experiment changes."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

from deployments.flow_runs import start_run, wait_for_run
from local.stack import Stack
from tests.fixtures.support import (
    customers,
    environment_settings,
    ingest_frame,
    outcome,
    processes_of_run,
    run,
    save_settings,
)
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.stack,
    pytest.mark.slow,
    pytest.mark.heavy,
    pytest.mark.skipif(importlib.util.find_spec("prefect_dask") is None, reason="prefect-dask is not installed here"),
]

CLUSTER = """
import json, sys
from distributed import Client, LocalCluster

if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.readline()
        with Client(cluster) as client:
            done = client.run(lambda dask_worker: dask_worker.state.executed_count)
        with open(sys.argv[1], "w") as file:  # not printed: what the trials print comes out here, too
            json.dump(list(done.values()), file)
"""


@pytest.fixture
def cluster(team_checkout: Path, tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Start a scheduler and two workers that run in the checkout, as a team's cluster would."""
    script = tmp_path / "cluster.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(team_checkout)!r})\n{CLUSTER}")
    started = subprocess.Popen([sys.executable, str(script), str(tmp_path / "done.json")], cwd=team_checkout, text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    yield started
    started.kill()
    started.wait()


def like_local(name: str, **changed: Any) -> None:
    """Save another environment with the adapters of the local one."""
    save_settings({**environment_settings(), **changed}, name)


def trials_of(flow_run: Any) -> list[str]:
    with get_client(sync_client=True) as client:
        found = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.id])))
    return sorted(task.name for task in found if task.name.startswith("trial "))


def test_trials_run_on_the_workers_and_come_out_as_on_threads(
    stack: Stack, cluster: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    assert cluster.stdout is not None
    address = cluster.stdout.readline().strip()
    assert outcome(ingest_frame("trials", customers(), tmp_path)) == "Completed"
    like_local("on-dask", task_runner="dask", task_runner_address=address)
    wanted = {"model": "trials", "trials": 3, "parallel": 2}
    on_dask, on_threads = (run("experiment/experiment", **wanted, environment=name) for name in ("on-dask", "local"))
    assert (outcome(on_dask), outcome(on_threads)) == ("Completed", "Completed")
    best = [each.state.result(raise_on_failure=True) for each in (on_dask, on_threads)]
    assert best[0]["parameters"] == best[1]["parameters"]
    assert best[0]["value"] == best[1]["value"]
    assert trials_of(on_dask) == trials_of(on_threads) == ["trial 0", "trial 1", "trial 2"]
    cluster.communicate("\n", timeout=60)
    done = json.loads((tmp_path / "done.json").read_text())
    assert sum(done) == 3, "the trials of one experiment, and of that alone"
    assert min(done) >= 1, "side by side on both workers"


def test_a_scheduler_that_is_not_there_is_named(stack: Stack, tmp_path: Path) -> None:
    assert outcome(ingest_frame("trials", customers(), tmp_path)) == "Completed"
    like_local("no-dask", task_runner="dask", task_runner_address="tcp://127.0.0.1:9")
    done = run("experiment/experiment", model="trials", trials=1, environment="no-dask")
    assert "Dask at tcp://127.0.0.1:9 does not answer" in outcome(done)


def spawned(run_id: Any) -> set[int]:
    """Return the processes of a run that were spawned, as Dask starts workers; a trial's job is none of them."""
    found = set()
    for process in processes_of_run(run_id):
        with suppress(psutil.Error):
            if any("spawn_main" in part for part in process.cmdline()):
                found.add(process.pid)
    return found


def test_without_an_address_a_run_has_a_cluster_of_its_own_that_ends_with_it(stack: Stack, tmp_path: Path) -> None:
    assert outcome(ingest_frame("trials", customers(), tmp_path)) == "Completed"
    like_local("own-dask", task_runner="dask")
    run_id = start_run(
        "experiment/experiment", {"model": "trials", "trials": 2, "parallel": 2, "environment": "own-dask"}
    )
    workers = wait_for(lambda: found if len(found := spawned(run_id)) == 2 else None, what="two Dask workers")
    done = wait_for_run(run_id, seconds=240)
    assert outcome(done) == "Completed"
    assert trials_of(done) == ["trial 0", "trial 1"]
    assert not any(map(psutil.pid_exists, workers)), "the cluster has ended with the run"
