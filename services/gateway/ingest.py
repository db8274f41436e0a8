"""From a genuine delivery to a row in the inbox, and the answer to its sender. No HTTP, no clock, no Prefect."""

import re
from dataclasses import dataclass
from datetime import datetime

from blocks.inbox.base import Arrival, Delivery, Note, Outcome, Receipt
from runtime.digests import bytes_digest
from services.gateway.rules.changes import NoChange, RefChange
from services.gateway.rules.matching import ref_refusal
from services.gateway.rules.payloads import Sender, read_payload
from services.gateway.rules.rules import Triggers
from services.gateway.rules.strict_json import read_object
from services.gateway.signatures import Headers, InvalidSignature, VerifiedDelivery, single_header
from tasks.shared.rules.refusal import Refusal

DELIVERY_ID_HEADERS: dict[Sender, tuple[bytes, ...]] = {
    "github": (b"x-github-delivery",),
    "gitlab": (b"idempotency-key", b"x-gitlab-event-uuid"),
    "bitbucket": (b"x-request-uuid",),
    "gitea": (b"x-gitea-delivery",),
}
"""The header with a delivery's id; of several the first that is there."""

EVENT_HEADERS: dict[Sender, bytes] = {
    "github": b"x-github-event",
    "gitlab": b"x-gitlab-event",
    "bitbucket": b"x-event-key",
    "gitea": b"x-gitea-event",
}

_VALID_DELIVERY_ID = re.compile(r"[A-Za-z0-9_.:{}-]{1,200}")
_VALID_EVENT = re.compile(r"[A-Za-z0-9_.: -]{1,80}")


@dataclass(frozen=True)
class WebhookResponse:
    """What the sender is told: an HTTP status, a word, and why."""

    status: int
    outcome: str
    reason: str
    delivery_id: str = ""

    def content(self) -> dict[str, str]:
        """Return the body of the answer."""
        return {key: value for key, value in vars(self).items() if key != "status" and value}


INVALID_SIGNATURE_RESPONSE = WebhookResponse(401, "refused", "the signature is missing or not valid")
"""The one answer to every fault of a signature: who tries learns nothing from it."""


@dataclass(frozen=True)
class UnreadableDelivery:
    """A genuine delivery that cannot be read: what is noted, and what is answered."""

    note: Note
    response: WebhookResponse


def read_delivery(
    triggers: Triggers, sender: Sender, headers: Headers, body: bytes, verified: VerifiedDelivery, now: datetime
) -> Arrival | UnreadableDelivery:
    """Return what a genuine delivery says, ready for the inbox, or why nobody can tell."""
    name = ""
    try:
        name, event = _delivery_id(sender, headers, verified), _event_name(sender, headers)
        _check_content_type(headers)
        payload = read_object(body)
    except (_MalformedDelivery, Refusal) as cause:
        status = cause.status if isinstance(cause, _MalformedDelivery) else 400
        return UnreadableDelivery(
            Note(f"{sender}:{name}", "unread", str(cause), now), WebhookResponse(status, "refused", str(cause))
        )
    try:
        said = read_payload(sender, event, payload)
    except Refusal as cause:  # a genuine delivery that we do not understand: GitLab would give us up for a 4xx
        delivery = _delivery(f"{sender}:{name}", sender, event, NoChange("unread", ""), body, now)
        return Arrival(delivery, Outcome("refused", str(cause)))
    delivery = _delivery(f"{sender}:{name}", sender, event, said, body, now)
    once = not verified.signed_id and isinstance(said, RefChange)
    return Arrival(delivery, _immediate_outcome(triggers, sender, said), once)


def response_to(arrival: Arrival, receipt: Receipt) -> WebhookResponse:
    """Return what its sender is told, once a delivery is safe in the inbox."""
    name, outcome = receipt.recorded.id, arrival.outcome
    if receipt.how == "altered":
        return WebhookResponse(409, "refused", "this id came before with another body", name)
    if receipt.how == "replayed":
        return WebhookResponse(200, "ignored", "this body came before under another id", name)
    if receipt.how == "repeated":
        return WebhookResponse(200, "repeated", "it is here already", name)
    if outcome is not None:
        return WebhookResponse(200, outcome.state, outcome.reason, name)
    return WebhookResponse(202, "accepted", "it waits for its turn", name)


class _MalformedDelivery(Exception):
    def __init__(self, status: int, problem: str) -> None:
        self.status = status
        super().__init__(problem)


def _delivery_id(sender: Sender, headers: Headers, proof: VerifiedDelivery) -> str:
    given = proof.signed_id or _first_header(headers, DELIVERY_ID_HEADERS[sender])
    if not _VALID_DELIVERY_ID.fullmatch(given):
        raise _MalformedDelivery(
            400, f"the delivery's id is missing or malformed: header {DELIVERY_ID_HEADERS[sender][0].decode()}"
        )
    return given


def _event_name(sender: Sender, headers: Headers) -> str:
    event = _first_header(headers, (EVENT_HEADERS[sender],))
    if not _VALID_EVENT.fullmatch(event):
        raise _MalformedDelivery(400, f"the event is missing or malformed: header {EVENT_HEADERS[sender].decode()}")
    return event


def _first_header(headers: Headers, names: tuple[bytes, ...]) -> str:
    """Return the value of the first header that is there, "" when none is, or one is there twice."""
    for name in names:
        if any(key == name for key, _ in headers):
            try:
                return single_header(headers, name).decode("ascii")
            except (InvalidSignature, UnicodeDecodeError):
                return ""
    return ""


def _check_content_type(headers: Headers) -> None:
    found = {key: value.decode("latin-1").lower() for key, value in headers}
    if found.get(b"content-encoding", "identity") != "identity":
        raise _MalformedDelivery(415, "the body is compressed; send it as it is")
    if found.get(b"content-type", "").partition(";")[0].strip() != "application/json":
        raise _MalformedDelivery(
            415, "the body is not sent as application/json; choose that as the webhook's content type"
        )


def _delivery(
    name: str, sender: Sender, event: str, said: RefChange | NoChange, body: bytes, now: datetime
) -> Delivery:
    change = said.text() if isinstance(said, RefChange) else ""
    digest = bytes_digest(body)
    return Delivery(name, sender, event, said.repository, said.ref, said.commit, digest, change, now)


def _immediate_outcome(triggers: Triggers, sender: Sender, said: RefChange | NoChange) -> Outcome | None:
    if isinstance(said, NoChange):
        return Outcome("ignored", said.reason)
    allowed = triggers.repository(sender, said.repository)
    reason = ref_refusal(said.repository, said.ref, tag=said.kind == "tag", repository=allowed)
    return Outcome("ignored", reason) if reason else None
