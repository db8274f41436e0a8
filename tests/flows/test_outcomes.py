"""How runs end: in states that Prefect's UI shows, with the outcome in message, tag and name."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args
from uuid import UUID

import prefect
import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas import FlowRun
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateName
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.testing.utilities import prefect_test_harness

import flows.outcomes
from deployments.flow_runs import end_of_run, outcome_of_run
from flows.outcomes import end_run, report_problem
from tasks.shared.rules.run_outcomes import STATE_TYPES, Outcome
from tests.checkout import ROOT

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
UI_FOLDERS = ("ui_build", "ui_v2_build")


def names_shown_by_ui(folder: str) -> list[str]:
    """Return the state names by which a deployment's page of Prefect's UI filters.

    They are from the UI in the installed package: the list [`Scheduled`,`Late`,...,`TimedOut`] in a file of
    prefect/server/<folder>/assets. The page takes them all but `Scheduled`:
    `flowRuns:{state:{name:O.filter(e=>e!==`Scheduled`)}}`. Prefect 3.8.8 has Scheduled, Late, Resuming,
    AwaitingRetry, AwaitingConcurrencySlot, Pending, Paused, Suspended, Running, Retrying, Completed, Cached,
    Cancelled, Cancelling, Crashed, Failed and TimedOut; its second UI (ui_v2_build) has Submitting and
    InfrastructurePending, too.
    """
    for file in sorted((Path(prefect.__file__).parent / "server" / folder / "assets").glob("*.js")):
        found = re.search(r"\[(`Scheduled`,`Late`,[`\w,]+)\]", file.read_text(encoding="utf-8"))
        if found:
            return [name.strip("`") for name in found[1].split(",") if name != "`Scheduled`"]
    raise AssertionError(f"Prefect's UI in {folder} holds no list of state names any more")


@flow(name="end", flow_run_name="before its end")
def ends_in(outcome: Outcome) -> State:
    return end_run(outcome, "because of this", f"churn v4 · {outcome}")


@task(name="report")
def reports(problem: str) -> str:
    if problem:
        raise ValueError(problem)
    return "written"


@flow(name="lands and reports")
def lands_and_reports(problem: str) -> State:
    written = reports(problem, return_state=True)
    return end_run("deployed", "version 2 serves" + report_problem(written, "The evidence pack"), "churn v2")


@flow(name="raise")
def raises() -> State:
    raise ValueError("a mistake of ours")


@flow(name="retry", retries=1)
def ends_and_is_tried_again() -> State:
    if flow_run.run_count > 1:
        return end_run("drift", "tenure", "churn · drift")
    end_run("not_checked", "nothing was logged", "churn · not checked")
    raise ConnectionError("the connection broke after that")


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


def run_of(state: State) -> FlowRun:
    assert isinstance(state.state_details.flow_run_id, UUID)
    with get_client(sync_client=True) as client:
        return client.read_flow_run(state.state_details.flow_run_id)


@pytest.mark.server
@pytest.mark.slow
def test_every_end_of_a_run_is_found_by_the_filter_of_prefects_own_ui(server: None) -> None:
    runs = {outcome: run_of(ends_in(outcome, return_state=True)) for outcome in OUTCOMES}
    failed = run_of(raises(return_state=True))
    for folder in UI_FOLDERS:
        shown = FlowRunFilterState(name=FlowRunFilterStateName(any_=names_shown_by_ui(folder)))
        with get_client(sync_client=True) as client:
            found = {run.id for run in client.read_flow_runs(flow_run_filter=FlowRunFilter(state=shown))}
        assert {run.id for run in (*runs.values(), failed)} <= found
    for outcome, run in runs.items():
        assert run.state is not None
        assert run.state.type.value == STATE_TYPES.get(outcome, "COMPLETED")
        assert (outcome_of_run(run), run.name) == (outcome, f"churn v4 · {outcome}")
        assert f"outcome:{outcome}" in run.tags
    assert end_of_run(runs["rolled_back"]) == "Rolled back: because of this"
    assert (outcome_of_run(failed), end_of_run(failed).partition(":")[0]) == ("", "Failed")


@pytest.mark.server
@pytest.mark.slow
def test_a_run_that_is_tried_again_has_the_outcome_of_its_last_attempt(server: None) -> None:
    run = run_of(ends_and_is_tried_again(return_state=True))
    assert (outcome_of_run(run), run.name, run.tags) == ("drift", "churn · drift", ["outcome:drift"])


@pytest.mark.server
@pytest.mark.slow
def test_a_name_that_cannot_be_written_fails_no_run(server: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(run_id: UUID, outcome: Outcome, name: str) -> None:
        raise ConnectionError("Prefect does not answer")

    monkeypatch.setattr(flows.outcomes, "_rename_and_tag", away)
    run = run_of(ends_in("deployed", return_state=True))
    assert run.state is not None
    assert (run.state.name, run.state.message) == ("Completed", "Deployed: because of this")
    assert (run.name, outcome_of_run(run)) == ("before its end", "")


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.parametrize(
    ("problem", "message"),
    [
        ("", "Deployed: version 2 serves"),
        ("MLflow is away", "Deployed: version 2 serves. The evidence pack was not written: "),
    ],
    ids=["written", "not written"],
)
def test_a_report_that_fails_after_a_deployment_is_said_and_fails_no_run(
    server: None, problem: str, message: str
) -> None:
    run = run_of(lands_and_reports(problem, return_state=True))
    assert run.state is not None
    assert (run.state.name, outcome_of_run(run)) == ("Completed", "deployed")
    assert (run.state.message or "").startswith(message)
    assert problem in (run.state.message or "")


@pytest.mark.parametrize("path", sorted((ROOT / "flows").glob("*.py")), ids=lambda path: path.stem)
def test_no_flow_gives_its_state_a_name_of_its_own(path: Path) -> None:
    made_elsewhere = path.stem != "outcomes" and "prefect.states" in path.read_text()
    assert not made_elsewhere, "end_run of flows/outcomes.py makes the state that a run ends in"
    assert not re.search(r"\b(Completed|Failed|Cancelled|State)\(\s*name=", path.read_text())
