"""What a person asks of the inbox from a terminal: what came, what became of it, again, and what never came."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from blocks.inbox.base import Delivery, Entry, Inbox, Note
from deployments.secret_store import SecretStore
from runtime.digests import text_digest
from services.gateway.repositories import RepositoryCache
from services.gateway.rules.changes import RefChange
from services.gateway.rules.matching import pattern_matches
from services.gateway.rules.rules import Repository, Triggers


@dataclass(frozen=True)
class MissedPush:
    """A branch whose newest commit was never delivered; `last_delivered` is the last one that was ("" for none)."""

    repository: Repository
    branch: str
    commit: str
    last_delivered: str


def accounts_text(entries: tuple[Entry, ...]) -> str:
    """Return a line for each delivery: when, id, what, commit, how it ended and why."""
    return "\n".join(map(_delivery_line, entries)) or "nothing has been delivered"


def notes_text(notes: tuple[Note, ...]) -> str:
    """Return a line for each note."""
    lines = (f"{note.at:%Y-%m-%d %H:%M:%S}  {note.kind:<10} {note.about}  {note.text}" for note in notes)
    return "\n".join(lines) or "there are no notes"


def delivery_text(inbox: Inbox, delivery_id: str) -> str:
    """Return all there is to know of one delivery, with the reports of its runs. Raises NotFound."""
    entry = inbox.entry(delivery_id)
    delivery, outcome = entry.turn.delivery, entry.outcome
    lines = [
        _delivery_line(entry),
        f"body    sha256 {delivery.digest}",
        f"turn    {entry.turn.number}, asked for by {entry.turn.asked_by} at {entry.turn.asked_at:%Y-%m-%d %H:%M:%S}",
        f"change  {delivery.change or 'none'}",
    ]
    for run in outcome.runs if outcome else ():
        lines.append(f"run     {run.run_id}  {run.deployment}  by the rule {run.rule!r}")
        if text := inbox.report_text(run.run_id):
            lines += ["", text]
    return "\n".join(lines)


def find_missed_pushes(
    inbox: Inbox, triggers: Triggers, mirrors: RepositoryCache, vault: SecretStore
) -> Iterator[MissedPush]:
    """Yield the branches that count and whose newest commit never came: git is asked, not the host's API.

    Raises:
        Unavailable, Rejected: a repository cannot be asked.
    """
    for repository in triggers.repositories:
        token = vault.value(repository.credentials) if repository.credentials else ""
        for branch, commit in sorted(mirrors.branch_heads(repository.clone, token=token).items()):
            known = inbox.commits(repository.name, branch)
            if commit not in known and any(pattern_matches(pattern, branch) for pattern in repository.branches):
                yield MissedPush(repository, branch, commit, known[0] if known else "")


def ingest_missed_push(inbox: Inbox, push: MissedPush, by: str, now: datetime) -> str:
    """Put a missed push into the inbox as if it had come, and return its id; its files are asked of git."""
    name, sender = push.repository.name, push.repository.sender
    change = RefChange("push", name, push.branch, push.commit, push.last_delivered, by)
    delivery_id = f"{sender}:missed:{name}:{push.branch}:{push.commit}"
    digest = text_digest(delivery_id)
    delivery = Delivery(delivery_id, sender, "missed", name, push.branch, push.commit, digest, change.text(), now)
    inbox.receive(delivery)
    return delivery_id


def _delivery_line(entry: Entry) -> str:
    delivery = entry.turn.delivery
    what = " ".join(filter(None, [delivery.event, delivery.repository, delivery.ref, delivery.commit[:12]]))
    reason = entry.outcome.reason if entry.outcome else "waits for the dispatcher"
    return f"{delivery.received_at:%Y-%m-%d %H:%M:%S}  {delivery.id}  {what}  {entry.state.upper()}: {reason}"
