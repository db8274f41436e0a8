"""Who may decide, and when a decision lets a model be deployed. A resumed flow run is no permission; this is.

Names are what people say they are: this holds against mistakes and aliases, not against someone who takes
another's name. Look-alike letters of other alphabets are other names.
"""

import unicodedata
from datetime import datetime, timedelta
from typing import Protocol

from tasks.logic.approve.evidence import text_digest
from tasks.logic.refusal import Refusal

CLOCK_TOLERANCE = timedelta(minutes=5)
"""How far two machines' clocks may differ before a time that runs backwards is refused."""


class Request(Protocol):
    """What these rules read of an approval request."""

    @property
    def id(self) -> str:
        """Its name in the ledger."""

    @property
    def digest(self) -> str:
        """SHA-256 of the evidence."""

    @property
    def evidence(self) -> str:
        """The evidence as it was shown: canonical JSON."""

    @property
    def requested_by(self) -> str:
        """Who asked."""

    @property
    def requested_at(self) -> datetime:
        """When, with a time zone."""

    @property
    def expires_at(self) -> datetime:
        """From when on it counts no more, with a time zone."""

    @property
    def approvers(self) -> tuple[str, ...]:
        """Who may decide; empty: anyone with a name."""

    @property
    def four_eyes(self) -> bool:
        """Whether who asked may not decide."""


class Decision(Protocol):
    """What these rules read of a decision."""

    @property
    def request_id(self) -> str:
        """The request that it answers."""

    @property
    def digest(self) -> str:
        """SHA-256 of the evidence that was decided on."""

    @property
    def approved(self) -> bool:
        """Yes or no."""

    @property
    def by(self) -> str:
        """Who decided."""

    @property
    def reason(self) -> str:
        """Why."""

    @property
    def at(self) -> datetime:
        """When, with a time zone."""


def identity(name: str) -> str:
    """Return the name as it is compared: single spaces, no invisible characters, compatibility caseless.

    "Ann Lee", " ann  LEE " and full-width letters are one person. The formula is definition D146 of the Unicode
    Standard, section 3.13: NFKD(toCasefold(NFKD(toCasefold(NFD(name))))).
    """
    text = "".join(c for c in name if c.isspace() or unicodedata.category(c) not in {"Cc", "Cf", "Cs"})
    for form in ("NFD", "NFKD"):
        text = unicodedata.normalize(form, text).casefold()
    return " ".join(unicodedata.normalize("NFKD", text).split())


def check_decider(request: Request, by: str, reason: str, now: datetime) -> None:
    """Let `by` decide the request at `now`, for or against, for this reason.

    Raises:
        Refusal: the name has fewer than 2 letters or the reason fewer than 3; the request has expired; who
            asked decides although it takes four eyes; or the name is not on the list of approvers.
    """
    where, decider = f"approval request {request.id}", identity(by)
    _check_words(where, decider, by, reason)
    if _aware(now, where) >= _aware(request.expires_at, where):
        raise Refusal("the request has expired", where=where, value=_time(request), remedy="Ask again.")
    _check_four_eyes(request, decider, where)
    if request.approvers and decider not in {identity(name) for name in request.approvers}:
        who = ", ".join(request.approvers)
        raise Refusal("the name is not among the approvers", where=where, value=by, remedy=f"Ask one of: {who}.")


def check_deployable(
    request: Request,
    decision: Decision | None,
    *,
    evidence_digest: str,
    champion_now: str,
    champion_then: str,
    now: datetime,
) -> None:
    """Let the evidence that was approved be deployed at `now`. Returns only if every condition holds.

    Args:
        request: from the ledger.
        decision: from the ledger, None when there is none.
        evidence_digest: computed now, by the deployer, over what it is about to deploy.
        champion_now: the version that serves, "" for none.
        champion_then: the version that the evidence was held against, "" for none.
        now: with a time zone.

    Raises:
        Refusal: the request is undecided, rejected, or over other evidence; it was decided by someone not
            entitled or outside its time; it has expired; or another champion serves by now.
    """
    where = f"approval request {request.id}"
    if decision is None:
        raise Refusal("nobody has decided yet", where=where, remedy="Approve it, or wait.")
    if decision.approved is not True:
        raise Refusal(f"was rejected by {decision.by}: {decision.reason}", where=where)
    _check_digests(request, decision, evidence_digest, where)
    _check_times(request, decision, now, where)
    check_decider(request, decision.by, decision.reason, decision.at)
    if champion_now != champion_then:
        problem = f"the champion has changed since the evaluation, from {champion_then or 'none'}"
        remedy = "Run retrain again: it evaluates against the champion of now."
        raise Refusal(problem, where=where, value=champion_now or "none", remedy=remedy)


def _check_words(where: str, decider: str, by: str, reason: str) -> None:
    if len(decider) < 2:
        raise Refusal("a decision needs a name of 2 letters or more", where=where, value=by)
    if len(identity(reason)) < 3:
        raise Refusal("a decision needs a reason of 3 letters or more", where=where, value=reason)


def _check_four_eyes(request: Request, decider: str, where: str) -> None:
    if not request.four_eyes:
        return
    if not identity(request.requested_by):
        raise Refusal("nobody is named who asked, so four eyes cannot be checked", where=where, remedy="Ask again.")
    if decider == identity(request.requested_by):
        remedy = "Someone else must decide."
        raise Refusal("who asked may not decide", where=where, value=request.requested_by, remedy=remedy)


def _check_digests(request: Request, decision: Decision, evidence_digest: str, where: str) -> None:
    if decision.request_id != request.id:
        raise Refusal("the decision answers another request", where=where, value=decision.request_id)
    if decision.digest != request.digest:
        raise Refusal("the decision is over other evidence", where=where, value=decision.digest)
    if text_digest(request.evidence) != request.digest:
        raise Refusal("the evidence that was shown is not that of the digest", where=where, value=request.digest)
    if evidence_digest != request.digest:
        problem, remedy = "what is to be deployed is not what was approved", "Ask for approval of this evidence."
        raise Refusal(problem, where=where, value=evidence_digest, remedy=remedy)


def _check_times(request: Request, decision: Decision, now: datetime, where: str) -> None:
    asked, decided = _aware(request.requested_at, where), _aware(decision.at, where)
    expires, now = _aware(request.expires_at, where), _aware(now, where)
    if decided >= expires:
        raise Refusal("was decided after it had expired", where=where, value=decided.isoformat())
    if decided < asked - CLOCK_TOLERANCE:
        raise Refusal("was decided before it was asked for", where=where, value=decided.isoformat())
    if now < decided - CLOCK_TOLERANCE:
        raise Refusal("was decided in the future: check the clock", where=where, value=decided.isoformat())
    if now >= expires:
        raise Refusal("the approval has expired", where=where, value=_time(request), remedy="Ask again.")


def _aware(time: datetime, where: str) -> datetime:
    if time.utcoffset() is None:
        raise Refusal("a time without a zone", where=where, value=time.isoformat())
    return time


def _time(request: Request) -> str:
    return request.expires_at.isoformat()
