"""What was delivered to the gateway, what should have been, and the rules for it, as a person asks from a terminal."""

from datetime import UTC, datetime
from pathlib import Path

from deployments.secret_store import Vault
from deployments.state import state_folder
from services.gateway.dispatch import mirrors_below
from services.gateway.operator import missed, take_in_missed
from services.gateway.settings import TRIGGERS, open_inbox, read_triggers, unset


def missed_listing(environment: str, triggers: Path | None, by: str) -> tuple[str, bool]:
    """Return the pushes that never came, and whether all is well now; with `by` they are taken in, in that name.

    Raises:
        Refusal, PortError, Unreadable: the rules, the ledger, a repository or its token cannot be read.
    """
    inbox, rules = open_inbox(environment), read_triggers(triggers or TRIGGERS)
    found = list(missed(inbox, rules, mirrors_below(state_folder()), Vault()))
    lines: list[str] = []
    for each in found:
        where = f"{each.repository.name} {each.branch} is at {each.commit}, which never came"
        lines.append(f"{where}; the last that came: {each.before or 'none'}")
        if by:
            lines.append(f"  taken in as {take_in_missed(inbox, each, by, datetime.now(UTC))}")
    return "\n".join([*lines, f"{len(found)} missed"]), bool(by) or not found


def checked_rules(triggers: Path | None) -> str:
    """Return what the rules are about, and the senders without a secret. Raises Refusal with each mistake in them."""
    rules, lines = read_triggers(triggers or TRIGGERS), []
    names = ", ".join(repository.name for repository in rules.repositories)
    for sender in unset(rules, Vault()):
        wanted = ", ".join(rules.senders[sender].secrets)
        lines.append(f"{sender}: no secret is set ({wanted}): every delivery would be refused")
    return "\n".join([f"{len(rules.rules)} rules for {names or 'no repository'}", *lines])
