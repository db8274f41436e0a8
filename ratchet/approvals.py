"""List the approval requests that wait, and decide one from a terminal.

`python -m ratchet.approvals list | show | approve | reject | waive`. The decision goes into the ledger first,
signed; then the sleeping flow run is woken. Should that fail, the decision stands and the run finds it when it is
resumed. A waiver opens failed gates of a model (`--model`, `--gate`, `--until`) for the runs after it.
"""

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from blocks.common.errors import PortError
from blocks.environment import Environment, open_environment
from blocks.ledger.base import ApprovalRequest, Waiver
from local.stack import use
from services.decisions import CHANNEL, settle
from tasks.shared.rules.refusal import Refusal
from tasks.shared.waivers import waive


def choose(requests: Sequence[ApprovalRequest], wanted: str) -> ApprovalRequest:
    """Return the request with the id `wanted`, or the only one that waits when `wanted` is empty.

    Raises:
        Refusal: there is none, or more than one and none was named.
    """
    matching = [request for request in requests if not wanted or request.id == wanted]
    if len(matching) == 1:
        return matching[0]
    known = ", ".join(request.id for request in requests) or "none"
    problem = "no such request waits" if wanted else "say which request" if matching else "no request waits"
    raise Refusal(problem, value=wanted or None, remedy=f"Open requests: {known}.")


def listing(requests: Sequence[ApprovalRequest], now: datetime) -> str:
    """Return a line for each request: id, requester, time left, digest."""
    lines = []
    for request in requests:
        left = request.expires_at - now
        state = "EXPIRED" if left.total_seconds() <= 0 else f"{left.days} d {left.seconds // 3600} h left"
        lines.append(f"{request.id:<28} by {request.requested_by:<24} {state:<12} digest {request.digest[:12]}…")
    return "\n".join(lines) or "no approval request waits"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line against the running stack."""
    options = _parser().parse_args(arguments)
    try:
        use()
        _run(open_environment(options.environment), options)
    except (PortError, Refusal) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _run(world: Environment, options: argparse.Namespace) -> None:
    if options.command == "waive":
        print(_waive(world, options))
        return
    requests = world.ledger().open_requests()
    if options.command == "list":
        print(listing(requests, datetime.now(UTC)))
        return
    request = choose(requests, options.request)
    if options.command == "show":
        print(request.evidence)
        return
    approved = options.command == "approve"
    made = settle(world, request, approved=approved, by=options.by, reason=options.reason)
    word = "approved" if made.approved else "rejected"
    print(f"{word}: {request.id} by {made.by}, over digest {made.digest[:12]}…")


def _waive(world: Environment, options: argparse.Namespace) -> str:
    now, gates = datetime.now(UTC), tuple(options.gate)
    try:
        until = datetime.fromisoformat(options.until or "no time")
    except ValueError as cause:
        remedy = "Write a time with its zone, such as 2026-12-31T00:00:00Z."
        raise Refusal("a waiver needs an end", where="--until", value=options.until, remedy=remedy) from cause
    waiver = Waiver(options.model, world.name, gates, options.by, options.reason, CHANNEL, now, until)
    link = waive(world, waiver)
    return f"waived for {options.model} until {options.until}: {', '.join(gates)} (decision {link.number})"


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m ratchet.approvals", description=__doc__, formatter_class=raw)
    parser.add_argument("command", choices=["list", "show", "approve", "reject", "waive"])
    parser.add_argument("--request", default="", help="the request's id; may be left out when one waits")
    parser.add_argument("--by", default="", help="your name or e-mail address; not that of the requester")
    parser.add_argument("--reason", default="", help="why; it goes into the ledger")
    parser.add_argument("--model", default="", help="waive: the model")
    parser.add_argument("--gate", action="append", default=[], help="waive: a gate, such as auc, or `auc by contract`")
    parser.add_argument("--until", default="", help="waive: when it ends, ISO 8601 with a zone, at most 90 days ahead")
    parser.add_argument("--environment", default="local", help="the environment whose ledger to use")
    return parser


if __name__ == "__main__":
    sys.exit(main())
