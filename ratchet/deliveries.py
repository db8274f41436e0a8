"""What was delivered to the gateway, what should have been, and the rules for it, as a person asks from a terminal."""

from datetime import UTC, datetime
from pathlib import Path

from deployments.secret_store import SecretStore
from deployments.state import state_folder
from services.gateway.dispatch import open_repository_cache
from services.gateway.inbox_commands import find_missed_pushes, ingest_missed_push
from services.gateway.settings import TRIGGERS, open_inbox, read_triggers, senders_without_secret


def missed_listing(environment: str, triggers: Path | None, by: str) -> tuple[str, bool]:
    """Return the pushes that never came, and whether all is well now; with `by` they are taken in, in that name.

    Raises:
        Refusal, PortError, Unreadable: the rules, the ledger, a repository or its token cannot be read.
    """
    inbox, rules = open_inbox(environment), read_triggers(triggers or TRIGGERS)
    found = list(find_missed_pushes(inbox, rules, open_repository_cache(state_folder()), SecretStore()))
    lines: list[str] = []
    for each in found:
        where = f"{each.repository.name} {each.branch} is at {each.commit}, which never came"
        lines.append(f"{where}; the last that came: {each.last_delivered or 'none'}")
        if by:
            lines.append(f"  taken in as {ingest_missed_push(inbox, each, by, datetime.now(UTC))}")
    return "\n".join([*lines, f"{len(found)} missed"]), bool(by) or not found


def checked_rules(triggers: Path | None) -> str:
    """Return what the rules are about, and the senders without a secret. Raises Refusal with each mistake in them."""
    rules, lines = read_triggers(triggers or TRIGGERS), []
    names = ", ".join(repository.name for repository in rules.repositories)
    for sender in senders_without_secret(rules, SecretStore()):
        wanted = ", ".join(rules.senders[sender].secrets)
        lines.append(f"{sender}: no secret is set ({wanted}): every delivery would be refused")
    return "\n".join([f"{len(rules.rules)} rules for {names or 'no repository'}", *lines])
