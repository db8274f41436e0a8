"""Turn a verified delivery into an inbox row and into the HTTP response. No HTTP, clock or Prefect here."""

import re
from dataclasses import dataclass
from datetime import datetime

from blocks.inbox.base import Delivery, InboxNote, IncomingDelivery, ProcessingOutcome, Receipt
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
"""The headers that may contain a delivery's id; the first one present is used."""

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
    """The response to a webhook: HTTP status, outcome, reason."""

    status: int
    outcome: str
    reason: str
    delivery_id: str = ""

    def content(self) -> dict[str, str]:
        """Return the response's body."""
        return {key: value for key, value in vars(self).items() if key != "status" and value}


INVALID_SIGNATURE_RESPONSE = WebhookResponse(401, "refused", "the signature is missing or not valid")
"""The same response for every signature error, so that an attacker learns nothing."""


@dataclass(frozen=True)
class UnreadableDelivery:
    """A verified delivery that cannot be parsed: the note to store and the response to send."""

    note: InboxNote
    response: WebhookResponse


def read_delivery(
    triggers: Triggers, sender: Sender, headers: Headers, body: bytes, verified: VerifiedDelivery, now: datetime
) -> IncomingDelivery | UnreadableDelivery:
    """Parse a verified delivery for the inbox, or return why it cannot be parsed."""
    name = ""
    try:
        name, event = _delivery_id(sender, headers, verified), _event_name(sender, headers)
        _check_content_type(headers)
        payload = read_object(body)
    except (_MalformedDelivery, Refusal) as cause:
        status = cause.status if isinstance(cause, _MalformedDelivery) else 400
        return UnreadableDelivery(
            InboxNote(f"{sender}:{name}", "unreadable", str(cause), now), WebhookResponse(status, "refused", str(cause))
        )
    try:
        change = read_payload(sender, event, payload)
    except Refusal as cause:  # verified but not understood; respond 200: GitLab disables webhooks that respond 4xx
        delivery = _delivery(f"{sender}:{name}", sender, event, NoChange("unreadable", ""), body, now)
        return IncomingDelivery(delivery, ProcessingOutcome("refused", str(cause)))
    delivery = _delivery(f"{sender}:{name}", sender, event, change, body, now)
    once = not verified.signed_id and isinstance(change, RefChange)
    return IncomingDelivery(delivery, _immediate_outcome(triggers, sender, change), once)


def response_to(arrival: IncomingDelivery, receipt: Receipt) -> WebhookResponse:
    """Return the response to a delivery that is stored in the inbox."""
    name, outcome = receipt.recorded.id, arrival.outcome
    if receipt.status == "altered":
        return WebhookResponse(409, "refused", "this id was delivered before with another body", name)
    if receipt.status == "replayed":
        return WebhookResponse(200, "ignored", "this body was delivered before under another id", name)
    if receipt.status == "repeated":
        return WebhookResponse(200, "repeated", "the delivery is stored already", name)
    if outcome is not None:
        return WebhookResponse(200, outcome.state, outcome.reason, name)
    return WebhookResponse(202, "accepted", "the delivery waits for the dispatcher", name)


def claimed_id(sender: Sender, headers: Headers) -> str:
    """Return the id that a delivery which nobody has verified claims to have, or "" for none that is well formed."""
    name = _first_header(headers, DELIVERY_ID_HEADERS[sender])
    return name if _VALID_DELIVERY_ID.fullmatch(name) else ""


class _MalformedDelivery(Exception):
    def __init__(self, status: int, problem: str) -> None:
        self.status = status
        super().__init__(problem)


def _delivery_id(sender: Sender, headers: Headers, verified: VerifiedDelivery) -> str:
    delivery_id = verified.signed_id or _first_header(headers, DELIVERY_ID_HEADERS[sender])
    if not _VALID_DELIVERY_ID.fullmatch(delivery_id):
        raise _MalformedDelivery(
            400, f"the delivery's id is missing or malformed: header {DELIVERY_ID_HEADERS[sender][0].decode()}"
        )
    return delivery_id


def _event_name(sender: Sender, headers: Headers) -> str:
    event = _first_header(headers, (EVENT_HEADERS[sender],))
    if not _VALID_EVENT.fullmatch(event):
        raise _MalformedDelivery(400, f"the event is missing or malformed: header {EVENT_HEADERS[sender].decode()}")
    return event


def _first_header(headers: Headers, names: tuple[bytes, ...]) -> str:
    """Return the value of the first header that is present; "" when none is, or when it occurs twice."""
    for name in names:
        if any(key == name for key, _ in headers):
            try:
                return single_header(headers, name).decode("ascii")
            except (InvalidSignature, UnicodeDecodeError):
                return ""
    return ""


def _check_content_type(headers: Headers) -> None:
    values = {key: value.decode("latin-1").lower() for key, value in headers}
    if values.get(b"content-encoding", "identity") != "identity":
        raise _MalformedDelivery(415, "the body is compressed; send it uncompressed")
    if values.get(b"content-type", "").partition(";")[0].strip() != "application/json":
        raise _MalformedDelivery(
            415, "the body is not sent as application/json; choose that as the webhook's content type"
        )


def _delivery(
    name: str, sender: Sender, event: str, change: RefChange | NoChange, body: bytes, now: datetime
) -> Delivery:
    text = change.text() if isinstance(change, RefChange) else ""
    digest = bytes_digest(body)
    return Delivery(name, sender, event, change.repository, change.ref, change.commit, digest, text, now)


def _immediate_outcome(triggers: Triggers, sender: Sender, change: RefChange | NoChange) -> ProcessingOutcome | None:
    if isinstance(change, NoChange):
        return ProcessingOutcome("ignored", change.reason)
    allowed = triggers.repository(sender, change.repository)
    reason = ref_refusal(change.repository, change.ref, tag=change.kind == "tag", repository=allowed)
    return ProcessingOutcome("ignored", reason) if reason else None
