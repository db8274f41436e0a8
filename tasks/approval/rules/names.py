"""Names of people, and reasons: without invisible characters, and marked when nobody proved the name."""

from blocks.records.identity import normalized_name
from tasks.approval.rules.policy import check_visible
from tasks.shared.rules.refusal import Refusal

NOT_AUTHENTICATED = "(not authenticated)"
"""What follows a name, wherever it is shown, when nobody proved it."""


def shown_name(name: str, *, authenticated: bool) -> str:
    """Return the name, marked when nobody proved it."""
    return name if authenticated else f"{name} {NOT_AUTHENTICATED}"


def check_person_name(name: str, where: str = "name") -> str:
    """Return the name with single spaces. Raises Refusal below 2 visible letters, and for hidden characters."""
    if len(normalized_name(name)) < 2:
        raise Refusal("needs a name of 2 letters or more", where=where, value=name[:200])
    check_visible(name, "", where)
    return " ".join(name.split())


def check_reason(reason: str, where: str = "reason", minimum: int = 3) -> str:
    """Return the reason without outer spaces. Raises Refusal below `minimum` letters, and for hidden characters."""
    if len(normalized_name(reason)) < minimum:
        raise Refusal(f"needs a reason of {minimum} letters or more", where=where, value=reason[:200])
    check_visible("", reason, where)
    return reason.strip()
