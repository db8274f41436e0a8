"""What garbage collection keeps, roots and their dependencies, and its report. Others go after the grace period.

Roots are versions that were deployed, requested, passed or aliased, or that Ratchet did not make.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from blocks.records.approvals import ApprovalRequest
from blocks.records.collectable import Collectable
from blocks.records.deployments import Deployment
from blocks.records.tracking import ModelVersion
from runtime.foreign_text import Markdown, markdown_table
from tasks.cleanup.records import GarbageCollectionPlan
from tasks.cleanup.rules.cloud import CloudAction
from tasks.shared.rules.promotion import may_be_promoted
from tasks.shared.rules.refusal import Refusal

MIN_GRACE_PERIOD = timedelta(days=1)
"""The shortest grace period: a new artifact may not be referenced yet."""

KEEP_TAG = "ratchet.keep"
"""The tag with which a person keeps a run or a version permanently. Its value is ignored."""

PROMOTED_TAG = "ratchet.promoted"
"""The tag of a version that was deployed. Its value is the environment."""

MAX_ROWS_SHOWN = 200
"""The largest number of rows in each table."""


@dataclass(frozen=True)
class RemovalPlan:
    """The removable keys, dependents first, and the number of kept artifacts for each reason."""

    remove: tuple[str, ...]
    kept_counts: Mapping[str, int]


def plan_removal(
    artifacts: Sequence[Collectable], roots: Mapping[str, str], grace: timedelta, now: datetime
) -> RemovalPlan:
    """Return which artifacts may be removed.

    Args:
        artifacts: all artifacts. The dependencies of an artifact that is not listed are unknown, so list all of them.
        roots: the keys that must be kept, with reasons. A key without an artifact protects nothing else.
        grace: an artifact that was used within this time is kept, with its dependencies.
        now: the time, with a zone.

    Raises:
        Refusal: the grace period is shorter than a day, or two artifacts have the same key.
    """
    if grace < MIN_GRACE_PERIOD:
        raise Refusal("the grace period is too short", value=str(grace), remedy=f"Give at least {MIN_GRACE_PERIOD}.")
    by_key = {artifact.key: artifact for artifact in artifacts}
    if len(by_key) != len(artifacts):
        raise Refusal(
            "two artifacts have the same key, so it is unclear which one would be removed",
            value=Counter(artifact.key for artifact in artifacts).most_common(1)[0][0],
        )
    reasons = {artifact.key: _keep_reason(artifact, roots, grace, now) for artifact in artifacts}
    marked = reachable(by_key, [key for key, reason in reasons.items() if reason])
    kept: dict[str, int] = {}
    for key in marked:
        reason = reasons[key] or "a kept artifact depends on it"
        kept[reason] = kept.get(reason, 0) + 1
    return RemovalPlan(
        _dependents_first(by_key, [key for key in by_key if key not in marked]), dict(sorted(kept.items()))
    )


def reachable(artifacts: Mapping[str, Collectable], roots: Iterable[str]) -> set[str]:
    """Return the keys of the roots and of all their direct and indirect dependencies."""
    marked: set[str] = set()
    waiting = [key for key in roots if key in artifacts]
    while waiting:
        key = waiting.pop()
        if key not in marked:
            marked.add(key)
            waiting += [needed for needed in artifacts[key].depends_on if needed in artifacts]
    return marked


def _keep_reason(artifact: Collectable, roots: Mapping[str, str], grace: timedelta, now: datetime) -> str:
    if artifact.key in roots:
        return roots[artifact.key]
    return artifact.keep_reason or ("used within the grace period" if now - artifact.last_used < grace else "")


def _dependents_first(artifacts: Mapping[str, Collectable], keys: Sequence[str]) -> tuple[str, ...]:
    """Order the keys so that dependents go first. After a crash, the remaining artifacts still have what they need."""
    removable, done, ordered = set(keys), set[str](), list[str]()
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
                    (needed, False)
                    for needed in artifacts[key].depends_on
                    if needed in removable and needed not in done
                ]
    return tuple(reversed(ordered))


def protected_model_keys(
    model: str, lines: Iterable[Deployment], requests: Iterable[ApprovalRequest], versions: Iterable[ModelVersion]
) -> dict[str, str]:
    """Return the keys that must be kept, with their reasons.

    A version that was deployed is kept with its release, because a rollback may restore it. A failed deployment is
    no reason to keep a version.
    """
    roots: dict[str, str] = {}
    for registered in versions:
        if reason := _version_keep_reason(registered):
            roots[f"version:{model}/{registered.version}"] = reason
    for request in requests:
        roots |= _version_and_release(model, request.version, "an approval request is open")
    for line in lines:
        if line.status == "serving":
            roots |= _version_and_release(model, line.version, "it was deployed, so a rollback may restore it")
    return roots


def _version_and_release(model: str, version: str, reason: str) -> dict[str, str]:
    return {f"{kind}:{model}/{version}": reason for kind in ("version", "release")}


def _version_keep_reason(version: ModelVersion) -> str:
    tags = version.tags
    if version.aliases:
        return f"it has the alias {version.aliases[0]}"
    if PROMOTED_TAG in tags:
        return "it was deployed, so a rollback may restore it"
    if KEEP_TAG in tags:
        return f"a person tagged it {KEEP_TAG}"
    if "ratchet.key" not in tags:
        return "it was not made by Ratchet"
    if may_be_promoted(tags.get("ratchet.tier", ""), tags.get("ratchet.verdict", "")):
        return "it passed the evaluation on the full tier"
    return ""


def bytes_text(count: int) -> str:
    """Return a number of bytes in a readable unit."""
    size, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"


def garbage_collection_markdown(plan: GarbageCollectionPlan) -> Markdown:
    """Return the plan as Markdown: the removed artifacts with their bytes, and the reasons to keep others."""
    kinds: dict[str, list[int]] = {}
    for removal in plan.remove:
        kinds.setdefault(removal.key.partition(":")[0], []).append(removal.bytes)
    totals = [(kind, str(len(sizes)), bytes_text(sum(sizes))) for kind, sizes in sorted(kinds.items())]
    count = Markdown("**{} artifacts, {}.**").format(len(plan.remove), bytes_text(plan.bytes))
    parts = [Markdown("## What garbage collection removes"), count]
    if totals:
        parts += [markdown_table(("kind", "number", "bytes"), totals, "lrr")]
    if plan.cloud_actions:
        actions = [(each.action, each.name, each.reason, _saving_text(each)) for each in plan.cloud_actions]
        head = ("action", "name", "reason", "largest saving")
        parts += [Markdown("### In the cloud account"), markdown_table(head, actions[:MAX_ROWS_SHOWN])]
    kept = markdown_table(("reason", "artifacts"), plan.kept_counts.items(), "lr")
    parts += [Markdown("### Kept"), kept if plan.kept_counts else Markdown("Nothing is kept.")]
    if plan.remove:
        rows = [(each.description, bytes_text(each.bytes)) for each in plan.remove[:MAX_ROWS_SHOWN]]
        parts += [Markdown("### Removed"), markdown_table(("artifact", "bytes"), rows, "lr")]
        if len(plan.remove) > MAX_ROWS_SHOWN:
            parts += [Markdown("… and {} more").format(len(plan.remove) - MAX_ROWS_SHOWN)]
    return Markdown("\n\n").join(parts)


def _saving_text(action: CloudAction) -> str:
    if action.action == "remove checkpoints":
        return bytes_text(action.freed_bytes)
    if action.saving_usd is None:
        return "no price is known"
    return f"{action.saving_usd:,.2f} USD" + ("" if action.action in ("stop job", "stop transform") else " a day")
