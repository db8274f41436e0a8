"""How many people must approve, and who: the stricter of what a model and its environment ask for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ApprovalRequirements:
    """What an approval takes.

    Attributes:
        approvals: how many different people must approve.
        roles: each of them bears one of these; empty: any.
        approvers: each of them is one of these; empty: anyone with a name.
        four_eyes: neither who asked nor who wrote the code may decide.
        expires_days: days after which a request lapses.
        authenticated: only decisions count whose channel proved who it was.
    """

    approvals: int = 1
    roles: tuple[str, ...] = ()
    approvers: tuple[str, ...] = ()
    four_eyes: bool = True
    expires_days: int = 7
    authenticated: bool = False


def stricter_requirements(model: ApprovalRequirements, environment: ApprovalRequirements) -> ApprovalRequirements:
    """Return the policy that satisfies both; where both name people or roles, those of the environment count."""
    return ApprovalRequirements(
        approvals=max(model.approvals, environment.approvals),
        roles=environment.roles or model.roles,
        approvers=environment.approvers or model.approvers,
        four_eyes=model.four_eyes or environment.four_eyes,
        expires_days=min(model.expires_days, environment.expires_days),
        authenticated=model.authenticated or environment.authenticated,
    )
