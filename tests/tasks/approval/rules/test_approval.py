"""The rules of approvals: only an entitled person's decision, in time and over this evidence, allows a deployment."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.records.approvals import ApprovalRequest
from blocks.records.approvals import Decision as LedgerDecision
from blocks.records.identity import normalized_name
from tasks.approval.rules.approval import CLOCK_TOLERANCE, check_decider, check_deployable
from tasks.approval.rules.evidence import text_digest
from tasks.shared.rules.refusal import Refusal

ASKED = datetime(2026, 11, 21, 10, tzinfo=UTC)
EXPIRES = ASKED + timedelta(days=7)
SECOND = timedelta(seconds=1)
EVIDENCE = '{"model":"churn"}'
DIGEST = text_digest(EVIDENCE)
REQUEST = ApprovalRequest(
    id="r1",
    model="churn",
    environment="local",
    version="3",
    digest=DIGEST,
    evidence=EVIDENCE,
    requested_by="Ann Lee",
    requested_at=ASKED,
    expires_at=EXPIRES,
    flow_run_id="f1",
)
DECISION = LedgerDecision(
    request_id="r1",
    digest=DIGEST,
    approved=True,
    by="Bob",
    reason="looks right",
    channel="terminal",
    at=ASKED + timedelta(hours=1),
)


@dataclass(frozen=True)
class Case:
    """All arguments that the deployment passes to the rule."""

    request: ApprovalRequest = REQUEST
    decision: LedgerDecision | None = DECISION
    evidence_digest: str = DIGEST
    champion_now: str = "2"
    champion_then: str = "2"
    now: datetime = ASKED + timedelta(hours=2)


def deploy(case):
    check_deployable(
        case.request,
        [case.decision] if case.decision else [],
        evidence_digest=case.evidence_digest,
        current_champion=case.champion_now,
        evaluated_champion=case.champion_then,
        now=case.now,
    )


def decided(**changes):
    return replace(DECISION, **changes)


ENTITLED = {
    "another person": ("Bob", {}),
    "listed": ("Bob", {"approvers": ("Bob", "Cid")}),
    "listed in another case": (" bOB ", {"approvers": ("Bob",)}),
    "who asked, without four eyes": ("Ann Lee", {"four_eyes": False}),
    "two letters": ("Bo", {}),
}


@pytest.mark.parametrize(("by", "changes"), ENTITLED.values(), ids=ENTITLED)
def test_someone_entitled_decides(by, changes):
    """The check must not raise."""
    check_decider(replace(REQUEST, **changes), by, "looks right", EXPIRES - SECOND)


NOT_ENTITLED = {
    "no name": ("", {}, "2 letters"),
    "spaces": ("   ", {}, "2 letters"),
    "one letter": ("B", {}, "2 letters"),
    "invisible letters": ("\u200b\u200b\u2060", {}, "2 letters"),
    "who asked": ("Ann Lee", {}, "the requester may not decide"),
    "who asked, other case": ("ANN lee", {}, "the requester may not decide"),
    "who asked, more spaces": ("  Ann  Lee ", {}, "the requester may not decide"),
    "who asked, with a tab": ("Ann\tLee", {}, r"nobody sees: \\t"),
    "who asked, full-width": ("Ａｎｎ Ｌｅｅ", {}, "the requester may not decide"),
    "who asked, with an invisible letter": ("Ann\u200b Lee", {}, r"nobody sees: \\u200b"),
    "who asked, in the list": ("Ann Lee", {"approvers": ("Ann Lee",)}, "the requester may not decide"),
    "who asked, with sharp s": ("STRASSE", {"requested_by": "straße"}, "the requester may not decide"),
    "not listed": ("Bob", {"approvers": ("Cid", "Dora")}, "Ask one of: Cid, Dora"),
    "part of a listed name": ("Bo", {"approvers": ("Bob",)}, "not among the approvers"),
    "a name that reads backwards": ("boB\u202e", {}, r"nobody sees: \\u202e"),
    "a name that rewrites the line": ("Bob\x1b[2K", {}, r"nobody sees: \\x1b"),
    "nobody asked": ("Bob", {"requested_by": " "}, "four-eyes rule cannot be checked"),
}


@pytest.mark.parametrize(("by", "changes", "says"), NOT_ENTITLED.values(), ids=NOT_ENTITLED)
def test_someone_not_entitled_is_refused(by, changes, says):
    with pytest.raises(Refusal, match=f"approval request r1: .*{says}"):
        check_decider(replace(REQUEST, **changes), by, "looks right", ASKED)


@pytest.mark.parametrize("reason", ["", "  ", "ok", "\u200b\u200b\u200b\u200b"], ids=ascii)
def test_a_decision_needs_a_reason(reason):
    with pytest.raises(Refusal, match="3 letters"):
        check_decider(REQUEST, "Bob", reason, ASKED)


def test_an_expired_request_cannot_be_decided():
    with pytest.raises(Refusal, match="expired"):
        check_decider(REQUEST, "Bob", "looks right", EXPIRES)


def test_a_time_without_a_zone_is_refused():
    with pytest.raises(Refusal, match="zone"):
        check_decider(REQUEST, "Bob", "looks right", ASKED.replace(tzinfo=None))


DEPLOYABLE = {
    "approved": Case(),
    "a first model": Case(champion_now="", champion_then=""),
    "in the last second": Case(now=EXPIRES - SECOND),
    "with clocks a little apart": Case(decision=decided(at=ASKED - SECOND), now=ASKED - 2 * SECOND),
}
REFUSED = {
    "no decision": (Case(decision=None), "nobody has decided"),
    "rejected": (Case(decision=decided(approved=False, reason="too early")), "rejected by Bob: too early"),
    "approved by a text": (Case(decision=decided(approved="no")), "rejected"),
    "decision over other evidence": (Case(decision=decided(digest="f" * 64)), "decision is about other evidence"),
    "decision of another request": (Case(decision=decided(request_id="r0")), "decision is about another request"),
    "other evidence is deployed": (Case(evidence_digest="f" * 64), "not what was approved"),
    "digest in capitals": (Case(evidence_digest=DIGEST.upper()), "not what was approved"),
    "no digest": (Case(evidence_digest=""), "not what was approved"),
    "shown evidence was edited": (Case(request=replace(REQUEST, evidence=EVIDENCE + " ")), "does not match its digest"),
    "decided a second late": (Case(decision=decided(at=EXPIRES + SECOND)), "after it had expired"),
    "decided as it expired": (Case(decision=decided(at=EXPIRES)), "after it had expired"),
    "decided before it was asked": (Case(decision=decided(at=ASKED - 2 * CLOCK_TOLERANCE)), "before it was requested"),
    "approval expired": (Case(now=EXPIRES), "approval has expired"),
    "clock moved back": (Case(now=ASKED), "check the clock"),
    "decided by who asked": (Case(decision=decided(by="ann lee")), "the requester may not decide"),
    "approver removed since": (Case(request=replace(REQUEST, approvers=("Cid",))), "not among the approvers"),
    "decided by nobody": (Case(decision=decided(by=" ")), "2 letters"),
    "decided without a reason": (Case(decision=decided(reason="")), "3 letters"),
    "champion changed": (Case(champion_now="3"), "changed since the evaluation, from 2"),
    "champion gone": (Case(champion_now=""), "changed since the evaluation"),
    "champion came": (Case(champion_then=""), "from none"),
    "now without a zone": (Case(now=ASKED.replace(tzinfo=None)), "zone"),
    "decided without a zone": (Case(decision=decided(at=ASKED.replace(tzinfo=None))), "zone"),
}


@pytest.mark.parametrize("case", DEPLOYABLE.values(), ids=DEPLOYABLE)
def test_what_was_approved_is_deployed(case):
    """The check must not raise."""
    deploy(case)


@pytest.mark.parametrize(("case", "says"), REFUSED.values(), ids=REFUSED)
def test_anything_else_is_refused_with_its_own_reason(case, says):
    with pytest.raises(Refusal, match=f"^approval request r1: .*{says}"):
        deploy(case)


def test_every_refusal_has_its_own_message():
    messages = set()
    for name in ("no decision", "rejected", "other evidence is deployed", "approval expired", "champion changed"):
        with pytest.raises(Refusal) as refused:
            deploy(REFUSED[name][0])
        messages.add(refused.value.problem)
    assert len(messages) == 5


NAMES = st.sampled_from(["Ann Lee", "ANN LEE", "Bob", "bob ", "Cid", "", "B"])
TIMES = st.sampled_from([ASKED - timedelta(days=1), ASKED, ASKED + SECOND, EXPIRES - SECOND, EXPIRES, EXPIRES + SECOND])
DIGESTS = st.sampled_from([DIGEST, DIGEST, DIGEST, "f" * 64])
REQUESTS = st.builds(
    replace,
    st.just(REQUEST),
    digest=DIGESTS,
    evidence=st.sampled_from([EVIDENCE, EVIDENCE, "{}"]),
    requested_by=NAMES,
    approvers=st.sampled_from([(), (), ("Bob",), ("Ann Lee",)]),
    four_eyes=st.booleans(),
)
DECISIONS = st.none() | st.builds(
    replace,
    st.just(DECISION),
    request_id=st.sampled_from(["r1", "r1", "r2"]),
    digest=DIGESTS,
    approved=st.booleans(),
    by=NAMES,
    reason=st.sampled_from(["looks right", "looks right", ""]),
    at=TIMES,
)
VERSIONS = st.sampled_from(["", "2"])
CASES = st.builds(Case, REQUESTS, DECISIONS, DIGESTS, VERSIONS, VERSIONS, TIMES)


def allowed(case):
    """The same rule as an independent expression."""
    request, decision = case.request, case.decision
    if decision is None:
        return False
    someone = decision.by.strip().lower()
    asker = request.requested_by.strip().lower()
    return all(
        [
            decision.approved,
            decision.request_id == request.id,
            {decision.digest, request.digest, case.evidence_digest, text_digest(request.evidence)} == {DIGEST},
            request.requested_at <= decision.at <= case.now < request.expires_at,
            len(someone) > 1,
            decision.reason != "",
            not request.four_eyes or asker not in ("", someone),
            not request.approvers or someone in [name.lower() for name in request.approvers],
            case.champion_now == case.champion_then,
        ]
    )


@settings(max_examples=500)
@given(CASES)
def test_it_is_deployed_if_and_only_if_every_condition_holds(case):
    clocks_apart = case.decision is not None and timedelta(0) < case.decision.at - case.now <= CLOCK_TOLERANCE
    try:
        deploy(case)
    except Refusal:
        assert not allowed(case)
    else:
        assert allowed(case) or clocks_apart


@settings(max_examples=200)
@given(st.data())
def test_one_broken_condition_is_enough(data):
    case, _ = data.draw(st.sampled_from(list(REFUSED.values())))
    with pytest.raises(Refusal):
        deploy(replace(case, champion_now=data.draw(st.sampled_from([case.champion_now, "9"]))))


@given(st.text())
def test_a_name_is_compared_the_same_however_it_is_cased_or_spaced(name):
    assert normalized_name(f"  {name}\t") == normalized_name(name) == normalized_name(normalized_name(name))
    assert normalized_name(name.casefold()) == normalized_name(name)
