"""The gateway: `python -m services.gateway [serve]` takes deliveries of git hosts in and starts flow runs.

`list`, `notes`, `show ID`: what came, and what became of it. `redeliver ID`: once more, under today's rules.
`missed`: branches whose newest commit never came; `missed --take-in` makes up for it. `check`: read triggers.yaml.
`account add NAME --role ROLE`, `account list`, `account disable NAME`: who may sign in on the approvals page.
"""

import argparse
import getpass
import logging
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from blocks.common.errors import PortError
from blocks.ledger.base import Ledger
from deployments.secret_store import Unreadable, Vault
from deployments.state import state_folder
from services.gateway.approvals import commands
from services.gateway.dispatch import mirrors_below
from services.gateway.operator import account, listing, missed, notes_listing, take_in_missed
from services.gateway.settings import TRIGGERS, World, open_ledger, read_triggers, unset
from tasks.shared.rules.refusal import Refusal

COMMANDS = ("serve", "list", "notes", "show", "redeliver", "missed", "check")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns 2 when something is refused, with the reason on standard error."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    about_accounts = given[:1] == ["account"]
    options = _options([] if about_accounts else given)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for talkative in ("httpx", "httpcore"):
        logging.getLogger(talkative).setLevel(logging.WARNING)
    try:
        return commands.run(given[1:]) if about_accounts else _run(options)
    except (Refusal, PortError, Unreadable, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    if options.command == "check":
        return _check(options)
    ledger = open_ledger(options.environment)
    if options.command == "serve":
        from services.gateway.app import Limits
        from services.gateway.serving import listen, serve

        triggers = read_triggers(options.triggers)
        with listen(options.host, options.port) as listener:
            limits = Limits(body_bytes=options.max_bytes)
            serve(ledger, triggers, state_folder(), listener, limits, World(options.environment))
    elif options.command == "list":
        print(listing(ledger.entries(options.limit, state=options.state)))
    elif options.command == "notes":
        print(notes_listing(ledger.notes(options.limit)))
    elif options.command == "show":
        print(account(ledger, options.id))
    elif options.command == "redeliver":
        turn = ledger.ask_again(options.id, options.by, datetime.now(UTC))
        print(f"{turn.delivery.id}: turn {turn.number} waits for the dispatcher")
    else:
        return _missed(ledger, options)
    return 0


def _missed(ledger: Ledger, options: argparse.Namespace) -> int:
    found = list(missed(ledger, read_triggers(options.triggers), mirrors_below(state_folder()), Vault()))
    for each in found:
        where = f"{each.repository.name} {each.branch} is at {each.commit}, which never came"
        print(f"{where}; the last that came: {each.before or 'none'}")
        if options.take_in:
            print(f"  taken in as {take_in_missed(ledger, each, options.by, datetime.now(UTC))}")
    print(f"{len(found)} missed")
    return 1 if found and not options.take_in else 0


def _check(options: argparse.Namespace) -> int:
    triggers = read_triggers(options.triggers)
    names = ", ".join(repository.name for repository in triggers.repositories)
    print(f"{len(triggers.rules)} rules for {names or 'no repository'}")
    for sender in unset(triggers, Vault()):
        wanted = ", ".join(triggers.senders[sender].secrets)
        print(f"{sender}: no secret is set ({wanted}): every delivery would be refused")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m services.gateway", description=__doc__, formatter_class=raw)
    parser.add_argument("command", nargs="?", default="serve", choices=COMMANDS)
    parser.add_argument("id", nargs="?", default="", help="a delivery, as `list` shows it")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; outside, a proxy with TLS stands before"
    )
    parser.add_argument("--port", type=int, default=8090, help="port to listen on; 0 takes a free one")
    parser.add_argument("--environment", default="local", help="the environment whose ledger to use")
    parser.add_argument("--triggers", type=Path, default=TRIGGERS, help="the file of rules")
    parser.add_argument("--max-bytes", type=int, default=1_048_576, help="the largest body that is read")
    parser.add_argument("--state", choices=["open", "started", "ignored", "refused"], help="list those alone")
    parser.add_argument("--limit", type=int, default=50, help="list so many at most")
    parser.add_argument("--by", default=getpass.getuser(), help="who asks; it is written down")
    parser.add_argument("--take-in", action="store_true", help="put what was missed into the inbox")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
