"""What a person asks of the inbox from a terminal: what came, what became of it, again, and what never came."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from blocks.inbox.base import Delivery, Entry, Inbox, Note
from deployments.secret_store import Vault
from runtime.digests import text_digest
from services.gateway.repositories import Mirrors
from services.gateway.rules.changes import Change
from services.gateway.rules.matching import matches
from services.gateway.rules.rules import Repository, Triggers


@dataclass(frozen=True)
class Missed:
    """A branch whose newest commit was never delivered; `before` is the last one that was ("" for none)."""

    repository: Repository
    branch: str
    commit: str
    before: str


def listing(entries: tuple[Entry, ...]) -> str:
    """Return a line for each delivery: when, id, what, commit, how it ended and why."""
    return "\n".join(map(_line, entries)) or "nothing has been delivered"


def notes_listing(notes: tuple[Note, ...]) -> str:
    """Return a line for each note."""
    lines = (f"{note.at:%Y-%m-%d %H:%M:%S}  {note.kind:<10} {note.about}  {note.text}" for note in notes)
    return "\n".join(lines) or "there are no notes"


def account(inbox: Inbox, delivery_id: str) -> str:
    """Return all there is to know of one delivery, with the reports of its runs. Raises NotFound."""
    entry = inbox.entry(delivery_id)
    delivery, outcome = entry.turn.delivery, entry.outcome
    lines = [
        _line(entry),
        f"body    sha256 {delivery.digest}",
        f"turn    {entry.turn.number}, asked for by {entry.turn.asked_by} at {entry.turn.asked_at:%Y-%m-%d %H:%M:%S}",
        f"change  {delivery.change or 'none'}",
    ]
    for run in outcome.runs if outcome else ():
        lines.append(f"run     {run.run_id}  {run.deployment}  by the rule {run.rule!r}")
        if text := inbox.report_text(run.run_id):
            lines += ["", text]
    return "\n".join(lines)


def missed(inbox: Inbox, triggers: Triggers, mirrors: Mirrors, vault: Vault) -> Iterator[Missed]:
    """Yield the branches that count and whose newest commit never came: git is asked, not the host's API.

    Raises:
        Unavailable, Rejected: a repository cannot be asked.
    """
    for repository in triggers.repositories:
        token = vault.value(repository.credentials) if repository.credentials else ""
        for branch, commit in sorted(mirrors.heads(repository.clone, token=token).items()):
            known = inbox.commits(repository.name, branch)
            if commit not in known and any(matches(pattern, branch) for pattern in repository.branches):
                yield Missed(repository, branch, commit, known[0] if known else "")


def take_in_missed(inbox: Inbox, found: Missed, by: str, now: datetime) -> str:
    """Put a missed push into the inbox as if it had come, and return its id; its files are asked of git."""
    name, sender = found.repository.name, found.repository.sender
    change = Change("push", name, found.branch, found.commit, found.before, by)
    delivery_id = f"{sender}:missed:{name}:{found.branch}:{found.commit}"
    digest = text_digest(delivery_id)
    delivery = Delivery(delivery_id, sender, "missed", name, found.branch, found.commit, digest, change.text(), now)
    inbox.receive(delivery)
    return delivery_id


def _line(entry: Entry) -> str:
    delivery = entry.turn.delivery
    what = " ".join(filter(None, [delivery.event, delivery.repository, delivery.ref, delivery.commit[:12]]))
    reason = entry.outcome.reason if entry.outcome else "waits for the dispatcher"
    return f"{delivery.received_at:%Y-%m-%d %H:%M:%S}  {delivery.id}  {what}  {entry.state.upper()}: {reason}"
