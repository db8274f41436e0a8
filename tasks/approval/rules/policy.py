"""What an approval requires, and the members of requests and decisions that the rules of approvals read."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ApprovalRequirements:
    """The requirements of an approval.

    Attributes:
        approvals: how many different people must approve.
        roles: each approver needs one of these roles. Empty: no role is needed.
        approvers: only these people may approve. Empty: anyone.
        four_eyes: the requester and the authors of the code may not decide.
        expires_days: days after which a request expires.
        require_authentication: a decision counts only when its channel authenticated the person.
    """

    approvals: int = 1
    roles: tuple[str, ...] = ()
    approvers: tuple[str, ...] = ()
    four_eyes: bool = True
    expires_days: int = 7
    require_authentication: bool = False


def stricter_requirements(model: ApprovalRequirements, environment: ApprovalRequirements) -> ApprovalRequirements:
    """Return requirements that satisfy both. When both name people or roles, those of the environment apply."""
    return ApprovalRequirements(
        approvals=max(model.approvals, environment.approvals),
        roles=environment.roles or model.roles,
        approvers=environment.approvers or model.approvers,
        four_eyes=model.four_eyes or environment.four_eyes,
        expires_days=min(model.expires_days, environment.expires_days),
        require_authentication=model.require_authentication or environment.require_authentication,
    )
