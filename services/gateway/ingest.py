"""From a genuine delivery to a row in the inbox, and the answer to its sender. No HTTP, no clock, no Prefect."""

import re
from dataclasses import dataclass
from datetime import datetime

from blocks.inbox.base import Arrival, Delivery, Note, Outcome, Receipt
from runtime.digests import bytes_digest
from services.gateway.rules.changes import Change, Nothing
from services.gateway.rules.matching import not_allowed
from services.gateway.rules.payloads import Sender, read_payload
from services.gateway.rules.rules import Triggers
from services.gateway.rules.strict_json import read_object
from services.gateway.signatures import Forged, Genuine, Headers, single
from tasks.shared.rules.refusal import Refusal

IDS: dict[Sender, tuple[bytes, ...]] = {
    "github": (b"x-github-delivery",),
    "gitlab": (b"idempotency-key", b"x-gitlab-event-uuid"),
    "bitbucket": (b"x-request-uuid",),
    "gitea": (b"x-gitea-delivery",),
}
"""The header with a delivery's id; of several the first that is there."""

EVENTS: dict[Sender, bytes] = {
    "github": b"x-github-event",
    "gitlab": b"x-gitlab-event",
    "bitbucket": b"x-event-key",
    "gitea": b"x-gitea-event",
}

_ID = re.compile(r"[A-Za-z0-9_.:{}-]{1,200}")
_EVENT = re.compile(r"[A-Za-z0-9_.: -]{1,80}")


@dataclass(frozen=True)
class Answer:
    """What the sender is told: an HTTP status, a word, and why."""

    status: int
    said: str
    reason: str
    delivery: str = ""

    def content(self) -> dict[str, str]:
        """Return the body of the answer."""
        return {key: value for key, value in vars(self).items() if key != "status" and value}


NOT_GENUINE = Answer(401, "refused", "the signature is missing or not valid")
"""The one answer to every fault of a signature: who tries learns nothing from it."""


@dataclass(frozen=True)
class Unread:
    """A genuine delivery that cannot be read: what is noted, and what is answered."""

    note: Note
    answer: Answer


def read_delivery(
    triggers: Triggers, sender: Sender, headers: Headers, body: bytes, proof: Genuine, now: datetime
) -> Arrival | Unread:
    """Return what a genuine delivery says, ready for the inbox, or why nobody can tell."""
    name = ""
    try:
        name, event = _id(sender, headers, proof), _event(sender, headers)
        _check_content(headers)
        payload = read_object(body)
    except (_Unfit, Refusal) as cause:
        status = cause.status if isinstance(cause, _Unfit) else 400
        return Unread(Note(f"{sender}:{name}", "unread", str(cause), now), Answer(status, "refused", str(cause)))
    try:
        said = read_payload(sender, event, payload)
    except Refusal as cause:  # a genuine delivery that we do not understand: GitLab would give us up for a 4xx
        delivery = _delivery(f"{sender}:{name}", sender, event, Nothing("unread", ""), body, now)
        return Arrival(delivery, Outcome("refused", str(cause)))
    delivery = _delivery(f"{sender}:{name}", sender, event, said, body, now)
    once = not proof.signed_id and isinstance(said, Change)
    return Arrival(delivery, _ended_at_once(triggers, sender, said), once)


def answer_to(arrival: Arrival, receipt: Receipt) -> Answer:
    """Return what its sender is told, once a delivery is safe in the inbox."""
    name, outcome = receipt.recorded.id, arrival.outcome
    if receipt.how == "altered":
        return Answer(409, "refused", "this id came before with another body", name)
    if receipt.how == "replayed":
        return Answer(200, "ignored", "this body came before under another id", name)
    if receipt.how == "repeated":
        return Answer(200, "repeated", "it is here already", name)
    if outcome is not None:
        return Answer(200, outcome.state, outcome.reason, name)
    return Answer(202, "accepted", "it waits for its turn", name)


class _Unfit(Exception):
    def __init__(self, status: int, problem: str) -> None:
        self.status = status
        super().__init__(problem)


def _id(sender: Sender, headers: Headers, proof: Genuine) -> str:
    given = proof.signed_id or _first(headers, IDS[sender])
    if not _ID.fullmatch(given):
        raise _Unfit(400, f"the delivery's id is missing or malformed: header {IDS[sender][0].decode()}")
    return given


def _event(sender: Sender, headers: Headers) -> str:
    event = _first(headers, (EVENTS[sender],))
    if not _EVENT.fullmatch(event):
        raise _Unfit(400, f"the event is missing or malformed: header {EVENTS[sender].decode()}")
    return event


def _first(headers: Headers, names: tuple[bytes, ...]) -> str:
    """Return the value of the first header that is there, "" when none is, or one is there twice."""
    for name in names:
        if any(key == name for key, _ in headers):
            try:
                return single(headers, name).decode("ascii")
            except (Forged, UnicodeDecodeError):
                return ""
    return ""


def _check_content(headers: Headers) -> None:
    found = {key: value.decode("latin-1").lower() for key, value in headers}
    if found.get(b"content-encoding", "identity") != "identity":
        raise _Unfit(415, "the body is compressed; send it as it is")
    if found.get(b"content-type", "").partition(";")[0].strip() != "application/json":
        raise _Unfit(415, "the body is not sent as application/json; choose that as the webhook's content type")


def _delivery(name: str, sender: Sender, event: str, said: Change | Nothing, body: bytes, now: datetime) -> Delivery:
    change = said.text() if isinstance(said, Change) else ""
    digest = bytes_digest(body)
    return Delivery(name, sender, event, said.repository, said.ref, said.commit, digest, change, now)


def _ended_at_once(triggers: Triggers, sender: Sender, said: Change | Nothing) -> Outcome | None:
    if isinstance(said, Nothing):
        return Outcome("ignored", said.reason)
    allowed = triggers.repository(sender, said.repository)
    reason = not_allowed(said.repository, said.ref, tag=said.kind == "tag", allowed=allowed)
    return Outcome("ignored", reason) if reason else None
