"""The report of a garbage collection as Markdown: removed artifacts with their bytes, and reasons to keep others."""

from collections.abc import Mapping, Sequence

from tasks.cleanup.rules.cloud import CloudAction
from tasks.shared.records import PlannedRemoval

MAX_ROWS_SHOWN = 200
"""The largest number of rows in each table."""


def bytes_text(count: int) -> str:
    """Return a number of bytes in a readable unit."""
    size, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"


def garbage_collection_markdown(
    removals: Sequence[PlannedRemoval], kept: Mapping[str, int], actions: Sequence[CloudAction], *, heading: str
) -> str:
    """Return the report. `heading` says whether this is a plan or a result."""
    kinds: dict[str, list[int]] = {}
    for removal in removals:
        kinds.setdefault(removal.key.partition(":")[0], []).append(removal.bytes)
    totals = [f"| {kind} | {len(sizes)} | {bytes_text(sum(sizes))} |" for kind, sizes in sorted(kinds.items())]
    parts = [f"## {heading}", f"**{len(removals)} artifacts, {bytes_text(sum(each.bytes for each in removals))}.**"]
    if totals:
        parts += ["| kind | number | bytes |\n|---|---:|---:|\n" + "\n".join(totals)]
    if actions:
        parts += ["### In the cloud account", _actions_table(actions)]
    kept_rows = [f"| {reason} | {count} |" for reason, count in kept.items()]
    parts += [
        "### Kept",
        "| reason | artifacts |\n|---|---:|\n" + "\n".join(kept_rows) if kept_rows else "Nothing is kept.",
    ]
    if removals:
        rows = [f"| {each.description} | {bytes_text(each.bytes)} |" for each in removals[:MAX_ROWS_SHOWN]]
        more = f"\n\n… and {len(removals) - MAX_ROWS_SHOWN} more" if len(removals) > MAX_ROWS_SHOWN else ""
        parts += ["### Removed", "| artifact | bytes |\n|---|---:|\n" + "\n".join(rows) + more]
    return "\n\n".join(parts)


def _actions_table(actions: Sequence[CloudAction]) -> str:
    rows = [
        f"| {each.action} | {each.name} | {each.reason} | {_saving_text(each)} |" for each in actions[:MAX_ROWS_SHOWN]
    ]
    return "| action | name | reason | largest saving |\n|---|---|---|---|\n" + "\n".join(rows)


def _saving_text(action: CloudAction) -> str:
    if action.action == "remove checkpoints":
        return bytes_text(action.freed_bytes)
    if action.saving_usd is None:
        return "no price is known"
    return f"{action.saving_usd:,.2f} USD" + ("" if action.action in ("stop job", "stop transform") else " a day")
