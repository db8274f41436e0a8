"""Mark and sweep: what a root needs, directly or through others, stays; the rest may go once it is old enough."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from tasks.shared.rules.refusal import Refusal

MIN_GRACE_PERIOD = timedelta(days=1)
"""Nothing younger is ever removed: what a run has just made is not yet known to be needed."""


class CollectableLike(Protocol):
    """Something that is kept; `blocks.common.collectable.Collectable` is one."""

    @property
    def key(self) -> str:
        """Its kind and name."""

    @property
    def last_used(self) -> datetime:
        """When it was last written or used."""

    @property
    def depends_on(self) -> tuple[str, ...]:
        """The keys of what it cannot do without."""

    @property
    def keep_reason(self) -> str:
        """Why it must stay, or ""."""


@dataclass(frozen=True)
class RemovalPlan:
    """What may be removed, dependents before what they need, and how much stays for which reason."""

    remove: tuple[str, ...]
    kept_counts: Mapping[str, int]


def plan_removal(
    artifacts: Sequence[CollectableLike], roots: Mapping[str, str], grace: timedelta, now: datetime
) -> RemovalPlan:
    """Return what may be removed.

    Args:
        artifacts: all that is kept. What is not listed is not removed, and what it needs is not known: list all.
        roots: key and reason of what must stay. A key that is not among the things protects nothing else.
        grace: what was used within it stays, with all that it needs.
        now: the time, with a zone.

    Raises:
        Refusal: the grace period is shorter than a day, or two things bear one key.
    """
    if grace < MIN_GRACE_PERIOD:
        raise Refusal("the grace period is too short", value=str(grace), remedy=f"Give at least {MIN_GRACE_PERIOD}.")
    by_key = {thing.key: thing for thing in artifacts}
    if len(by_key) != len(artifacts):
        raise Refusal(
            "two kept things bear one key, so it is not known what would go",
            value=Counter(thing.key for thing in artifacts).most_common(1)[0][0],
        )
    reasons = {thing.key: _keep_reason(thing, roots, grace, now) for thing in artifacts}
    marked = reachable(by_key, [key for key, reason in reasons.items() if reason])
    kept: dict[str, int] = {}
    for key in marked:
        reason = reasons[key] or "needed by what stays"
        kept[reason] = kept.get(reason, 0) + 1
    return RemovalPlan(
        _dependents_first(by_key, [key for key in by_key if key not in marked]), dict(sorted(kept.items()))
    )


def reachable(things: Mapping[str, CollectableLike], roots: Iterable[str]) -> set[str]:
    """Return the keys of the roots and of all that they need, directly or through others."""
    marked: set[str] = set()
    waiting = [key for key in roots if key in things]
    while waiting:
        key = waiting.pop()
        if key not in marked:
            marked.add(key)
            waiting += [needed for needed in things[key].depends_on if needed in things]
    return marked


def _keep_reason(thing: CollectableLike, roots: Mapping[str, str], grace: timedelta, now: datetime) -> str:
    if thing.key in roots:
        return roots[thing.key]
    return thing.keep_reason or ("used within the grace period" if now - thing.last_used < grace else "")


def _dependents_first(things: Mapping[str, CollectableLike], keys: Sequence[str]) -> tuple[str, ...]:
    """Order so that nothing is removed before what needs it: what is left after a crash is found again whole."""
    wanted, done, ordered = set(keys), set[str](), list[str]()
    for first in keys:
        stack = [(first, False)]
        while stack:
            key, needs_done = stack.pop()
            if needs_done:
                ordered.append(key)
            elif key not in done:
                done.add(key)
                stack.append((key, True))
                stack += [
                    (needed, False) for needed in things[key].depends_on if needed in wanted and needed not in done
                ]
    return tuple(reversed(ordered))
