"""Inbox commands: list deliveries, show one, find pushes that were never delivered, add them to the inbox."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from blocks.inbox.base import Delivery, DeliveryStatus, Inbox, InboxNote
from deployments.secret_store import SecretStore
from deployments.state import state_folder
from runtime.digests import text_digest
from services.gateway.dispatch import open_repository_cache
from services.gateway.repositories import RepositoryCache
from services.gateway.rules.changes import RefChange
from services.gateway.rules.matching import pattern_matches
from services.gateway.rules.rules import Repository, Triggers
from services.gateway.settings import TRIGGERS, open_inbox, read_triggers, senders_without_secret


@dataclass(frozen=True)
class MissedPush:
    """A branch whose newest commit was never delivered; `last_delivered` is the last one that was ("" for none)."""

    repository: Repository
    branch: str
    commit: str
    last_delivered: str


def accounts_text(entries: tuple[DeliveryStatus, ...]) -> str:
    """Return a line for each delivery: time, id, event, commit, outcome and reason."""
    return "\n".join(map(_delivery_line, entries)) or "nothing has been delivered"


def notes_text(notes: tuple[InboxNote, ...]) -> str:
    """Return a line for each note."""
    lines = (f"{note.at:%Y-%m-%d %H:%M:%S}  {note.kind:<17} {note.subject_id}  {note.text}" for note in notes)
    return "\n".join(lines) or "there are no notes"


def delivery_text(inbox: Inbox, delivery_id: str) -> str:
    """Return all details of one delivery, with the reports of its runs. Raises NotFound."""
    entry = inbox.delivery_status(delivery_id)
    delivery, outcome = entry.turn.delivery, entry.outcome
    lines = [
        _delivery_line(entry),
        f"body    sha256 {delivery.digest}",
        f"turn    {entry.turn.number}, requested by {entry.turn.requested_by} "
        f"at {entry.turn.requested_at:%Y-%m-%d %H:%M:%S}",
        f"change  {delivery.change or 'none'}",
    ]
    for run in outcome.runs if outcome else ():
        lines.append(f"run     {run.run_id}  {run.deployment}  by the rule {run.rule!r}")
        if text := inbox.report_text(run.run_id):
            lines += ["", text]
    return "\n".join(lines)


def find_missed_pushes(
    inbox: Inbox, triggers: Triggers, repositories: RepositoryCache, secret_store: SecretStore
) -> Iterator[MissedPush]:
    """Yield the configured branches whose newest commit was never delivered, as `git ls-remote` shows it.

    Raises:
        Unavailable, Rejected: a repository cannot be read.
    """
    for repository in triggers.repositories:
        token = secret_store.value(repository.credentials) if repository.credentials else ""
        for branch, commit in sorted(repositories.branch_heads(repository.clone, token=token).items()):
            delivered = inbox.commits(repository.name, branch)
            if commit not in delivered and any(pattern_matches(pattern, branch) for pattern in repository.branches):
                yield MissedPush(repository, branch, commit, delivered[0] if delivered else "")


def ingest_missed_push(inbox: Inbox, push: MissedPush, by: str, now: datetime) -> str:
    """Add a missed push to the inbox as if it had been delivered, and return its id. Git supplies its files later."""
    name, sender = push.repository.name, push.repository.sender
    change = RefChange("push", name, push.branch, push.commit, push.last_delivered, by)
    delivery_id = f"{sender}:missed:{name}:{push.branch}:{push.commit}"
    digest = text_digest(delivery_id)
    delivery = Delivery(delivery_id, sender, "missed", name, push.branch, push.commit, digest, change.text(), now)
    inbox.receive(delivery)
    return delivery_id


def _delivery_line(entry: DeliveryStatus) -> str:
    delivery = entry.turn.delivery
    what = " ".join(filter(None, [delivery.event, delivery.repository, delivery.ref, delivery.commit[:12]]))
    reason = entry.outcome.reason if entry.outcome else "waits for the dispatcher"
    return f"{delivery.received_at:%Y-%m-%d %H:%M:%S}  {delivery.id}  {what}  {entry.state.upper()}: {reason}"


def missed_listing(environment: str, triggers: Path | None, by: str) -> tuple[str, bool]:
    """Return the missed pushes as text, and whether none is left; with `by` they are added to the inbox in that name.

    Raises:
        Refusal, PortError, SecretUnavailable: the rules, the ledger, a repository or its token cannot be read.
    """
    inbox, rules = open_inbox(environment), read_triggers(triggers or TRIGGERS)
    missed = list(find_missed_pushes(inbox, rules, open_repository_cache(state_folder()), SecretStore()))
    lines: list[str] = []
    for push in missed:
        problem = f"{push.repository.name} {push.branch}: commit {push.commit} was never delivered"
        lines.append(f"{problem}; last delivered commit: {push.last_delivered or 'none'}")
        if by:
            lines.append(f"  added to the inbox as {ingest_missed_push(inbox, push, by, datetime.now(UTC))}")
    return "\n".join([*lines, f"{len(missed)} missed"]), bool(by) or not missed


def checked_rules(triggers: Path | None) -> str:
    """Return a summary of the rules, and the senders without a secret. Raises Refusal with each mistake in the file."""
    rules, lines = read_triggers(triggers or TRIGGERS), []
    names = ", ".join(repository.name for repository in rules.repositories)
    for sender in senders_without_secret(rules, SecretStore()):
        secrets = ", ".join(rules.senders[sender].secrets)
        lines.append(f"{sender}: no secret is set ({secrets}): every delivery would be refused")
    return "\n".join([f"{len(rules.rules)} rules for {names or 'no repository'}", *lines])
