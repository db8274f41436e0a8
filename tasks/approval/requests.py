"""Ask a person to decide over exactly this evidence, and record what was decided."""

from collections.abc import Sequence
from datetime import datetime

from blocks.approvals.base import ApprovalRequest, Decision
from blocks.common.errors import Conflict
from blocks.environment import Environment
from tasks.approval.rules.approval import check_clock, check_decider
from tasks.approval.rules.evidence import (
    Checks,
    Evidence,
    text_digest,
)
from tasks.shared.records import Checked, Judged, TierData, Trained
from tasks.shared.trust import latest, people_of, policy_now, refusals_recorded


def where_to_decide(world: Environment, request_id: str) -> str:
    """Return the request's page at the gateway, where people sign in; without one, the command to type."""
    if address := world.gateway.address:
        return f"{address}/approvals/{request_id}"
    return f'make approve REQUEST={request_id} BY=you REASON="why"'


def commit_of(world: Environment, model: str, version: str) -> str:
    """Return the commit that a version was trained at, "" when there is no such version."""
    found = world.tracking().version(model, version) if version else None
    return found.tags.get("ratchet.commit", "") if found else ""


def gather(
    model: str,
    environment: str,
    data: TierData,
    checked: Checked,
    trained: Trained,
    judged: Judged,
    waivers: tuple[str, ...] = (),
    because: str = "",
    exhibits: str | None = None,
) -> Evidence:
    """Return everything that a decision is about; its digest is what is approved."""
    return Evidence(
        model=model,
        environment=environment,
        version=trained.version,
        model_digest=trained.model_digest,
        commit=trained.commit,
        patch_digest=trained.patch_digest,
        tier=data.tier,
        as_of=data.as_of,
        data_digest=data.data_digest,
        holdout_digest=data.holdout_digest,
        parameters=trained.parameters,
        seed=trained.seed,
        checks=Checks(passed=checked.passed, failed=0),
        metrics=judged.metrics,
        champion_version=judged.champion,
        champion_metrics=judged.champion_metrics,
        verdict=judged.outcome,
        reasons=judged.reasons,
        cost_usd=trained.cost_usd,
        serving_usd_month=trained.serving_usd_month,
        exhibits=exhibits,
        gates=judged.gates,
        waivers=waivers,
        because=because or None,
    )


def decide(
    world: Environment,
    request_id: str,
    *,
    approved: bool,
    by: str,
    reason: str,
    channel: str,
    now: datetime,
    authenticated: bool = False,
    roles: Sequence[str] = (),
    shown: str | None = None,
) -> Decision:
    """Sign and record a person's decision over the request as it stands in the ledger; return the recorded one.

    A refused attempt is recorded, too.

    Args:
        world, request_id, approved, by, reason, channel, now: the decision, and where it is recorded.
        authenticated: whether the channel proved who it is.
        roles: the roles that the channel proved with that; they are signed with the decision.
        shown: the digest of the request that the person was shown, where the channel knows it.

    Raises:
        Refusal: this person may not decide it, gave no reason, it has expired, or the clock has gone back.
        NotFound, Conflict: no such request, it is decided already, or it is not what was shown.
        Rejected: no key on this machine signs decisions.
        Corrupt: decisions that were signed are gone from the ledger.
    """
    approvals = world.approvals()
    request = approvals.approval_request(request_id)
    with refusals_recorded(world, request_id, "decide", by, channel, now):
        signer = world.signing.signer("decisions")
        check_clock(latest(approvals.links()) or request.requested_at, now)
        check_shown(request, shown)
        check_decider(
            request, by, reason, now, authenticated=authenticated, proved=roles,
            people=people_of(world), policy=policy_now(world, request.model),
        )  # fmt: skip
        made = Decision(
            request_id, request.digest, approved, by.strip(), reason.strip(), channel, now, authenticated,
            roles=tuple(sorted(roles)) if authenticated else (),
        )  # fmt: skip
        return approvals.decide(made, signer)


def check_shown(request: ApprovalRequest, shown: str | None) -> None:
    """Refuse a decision over something else than what is asked now.

    Raises:
        Conflict: the digest that the person was shown is not the request's, or not that of its evidence.
    """
    if shown is not None and not (shown == request.digest == text_digest(request.evidence)):
        raise Conflict(
            f"approval request {request.id!r} is not what was shown: that had digest {shown[:64]!r}. "
            "Read it again, and decide anew."
        )
