"""What a sweep would do, or did, as Markdown: what goes with its bytes, and what stays for which reason."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from tasks.cleanup.rules.garbage.cloud import CloudAction

MAX_ROWS_SHOWN = 200
"""How many lines of each table are shown."""


class RemovalLike(Protocol):
    """One thing that goes."""

    @property
    def key(self) -> str:
        """Its kind and name."""

    @property
    def description(self) -> str:
        """What it is."""

    @property
    def bytes(self) -> int:
        """What that frees."""


def bytes_text(count: int) -> str:
    """Return a number of bytes as people read it."""
    size, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"


def garbage_collection_markdown(
    removals: Sequence[RemovalLike], kept: Mapping[str, int], actions: Sequence[CloudAction], *, heading: str
) -> str:
    """Return the report; `heading` says whether this was done or would be."""
    kinds: dict[str, list[int]] = {}
    for removal in removals:
        kinds.setdefault(removal.key.partition(":")[0], []).append(removal.bytes)
    totals = [f"| {kind} | {len(sizes)} | {bytes_text(sum(sizes))} |" for kind, sizes in sorted(kinds.items())]
    parts = [f"## {heading}", f"**{len(removals)} things, {bytes_text(sum(each.bytes for each in removals))}.**"]
    if totals:
        parts += ["| what | how many | bytes |\n|---|---:|---:|\n" + "\n".join(totals)]
    if actions:
        parts += ["### In the cloud account", _actions_table(actions)]
    stays = [f"| {reason} | {count} |" for reason, count in kept.items()]
    parts += [
        "### What stays",
        "| because | things |\n|---|---:|\n" + "\n".join(stays) if stays else "Nothing is kept.",
    ]
    if removals:
        rows = [f"| {each.description} | {bytes_text(each.bytes)} |" for each in removals[:MAX_ROWS_SHOWN]]
        more = f"\n\n… and {len(removals) - MAX_ROWS_SHOWN} more" if len(removals) > MAX_ROWS_SHOWN else ""
        parts += ["### What goes, one by one", "| what | bytes |\n|---|---:|\n" + "\n".join(rows) + more]
    return "\n\n".join(parts)


def _actions_table(actions: Sequence[CloudAction]) -> str:
    rows = [
        f"| {each.action} | {each.name} | {each.reason} | {_saving_text(each)} |" for each in actions[:MAX_ROWS_SHOWN]
    ]
    return "| what | name | because | saves at most |\n|---|---|---|---|\n" + "\n".join(rows)


def _saving_text(action: CloudAction) -> str:
    if action.action == "remove checkpoints":
        return bytes_text(action.freed_bytes)
    if action.saving_usd is None:
        return "no price is known"
    return f"{action.saving_usd:,.2f} USD" + ("" if action.action in ("stop job", "stop transform") else " a day")
