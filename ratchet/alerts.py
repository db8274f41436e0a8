"""List the alerts that are open, acknowledge one, or deliver what waits.

`python -m ratchet.alerts list | ack | deliver`
"""

import argparse
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

from blocks.common.errors import PortError
from blocks.environment import Environment, open_environment
from blocks.ledger.base import Ledger
from local.stack import use
from tasks.notification.delivery import acknowledge, deliver_all, open_causes
from tasks.shared.rules.refusal import Refusal


def listing(ledger: Ledger, now: datetime) -> Iterator[str]:
    """Give the lines of the list: each open alert, then each message that no receiver has taken."""
    causes = open_causes(ledger, now)
    yield from ("no alert is open",) if not causes else ()
    for cause in causes:
        signals = ledger.signals(cause)
        raised = [signal for signal in signals if signal.state == "raised"][-1]
        seen = [signal for signal in signals if signal.state == "acknowledged"]
        who = f", acknowledged by {seen[-1].by}" if seen and seen[-1].at >= raised.at else ""
        yield f"{raised.severity:<8} {cause}  since {raised.at:%Y-%m-%d %H:%M %Z}{who}"
        yield f"         {raised.sentence}"
        yield from (f"         {label}: {target}" for label, target in raised.links.items())
    waiting = ledger.undelivered()
    if waiting:
        yield f"{len(waiting)} messages are not delivered yet:"
    for message, attempts in waiting:
        last = f"attempt {len(attempts)}: {attempts[-1].said}" if attempts else "not tried yet"
        yield f"         {message.channel}: {message.subject} ({last})"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line against the running stack."""
    options = _parser().parse_args(arguments)
    try:
        use()
        world = open_environment(options.environment)
        for line in _run(world, world.ledger(), options):
            print(line)
    except (PortError, Refusal) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _run(world: Environment, ledger: Ledger, options: argparse.Namespace) -> Iterator[str]:
    if options.command == "list":
        yield from listing(ledger, datetime.now(UTC))
    elif options.command == "deliver":
        done = deliver_all(world, ledger, lambda: datetime.now(UTC))
        yield f"{done.delivered} delivered, {done.failed} refused or out of reach, {done.waiting} wait for their time"
    elif not options.by.strip():
        raise Refusal("an acknowledgement needs a name", remedy="Say who looks after it: BY=you.")
    else:
        made = acknowledge(ledger, options.alert, options.by.strip(), options.note, datetime.now(UTC))
        yield f"acknowledged by {made.by}: {made.cause}"


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m ratchet.alerts", description=__doc__, formatter_class=raw)
    parser.add_argument("command", choices=["list", "ack", "deliver"])
    parser.add_argument("--alert", default="", help="the alert's name, as `list` shows it")
    parser.add_argument("--by", default="", help="your name or e-mail address")
    parser.add_argument("--note", default="", help="what you know of it, or do about it")
    parser.add_argument("--environment", default="local", help="the environment whose ledger to use")
    return parser


if __name__ == "__main__":
    sys.exit(main())
