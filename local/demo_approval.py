"""The approval step of the demo: a second, named person approves, or the user types a decision."""

import select
import shlex
import sys
import termios
from typing import TYPE_CHECKING

from prefect.client.schemas import FlowRun

from blocks.common.errors import PortError
from blocks.environment import open_environment
from services.decisions import record_decision
from tasks.shared.rules.refusal import Refusal

if TYPE_CHECKING:
    from local.demo import DemoRun

TYPED_DECISION_FORMAT = 'yes NAME REASON…  |  no NAME REASON…   (a NAME of several words in "quotes")'
REQUESTER, APPROVER = "Dana (data scientist)", "Max (second person)"


def decide_demo_request(story: "DemoRun", run: FlowRun, page: str) -> None:
    """Approve as a second, named person; in interactive mode wait for the user, here or on the Prefect UI."""
    env = open_environment("local")
    approvals = env.approvals()
    request = next(r for r in approvals.open_requests() if r.flow_run_id == str(run.id))
    if not story.interactive:
        reason = "demo: I approve the evidence shown above"
        record_decision(env, request, approved=True, by=APPROVER, reason=reason)
        story.print_line(f"approved by {APPROVER}, over digest {request.digest[:12]}…")
        return
    story.print_line(f"Request {request.id} by {REQUESTER}. Resume the run at {page},")
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


def record_typed_decision(story: "DemoRun", request_id: str, line: str) -> None:
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
