"""What a sweep would do, or did, as Markdown: what goes with its bytes, and what stays for which reason."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from tasks.cleanup.rules.garbage.cloud import Action

SHOWN = 200
"""How many lines of each table are shown."""


class Removal(Protocol):
    """One thing that goes."""

    @property
    def key(self) -> str:
        """Its kind and name."""

    @property
    def words(self) -> str:
        """What it is."""

    @property
    def bytes(self) -> int:
        """What that frees."""


def size_words(count: int) -> str:
    """Return a number of bytes as people read it."""
    size, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"


def sweep_markdown(
    removals: Sequence[Removal], kept: Mapping[str, int], actions: Sequence[Action], *, heading: str
) -> str:
    """Return the report; `heading` says whether this was done or would be."""
    kinds: dict[str, list[int]] = {}
    for removal in removals:
        kinds.setdefault(removal.key.partition(":")[0], []).append(removal.bytes)
    totals = [f"| {kind} | {len(sizes)} | {size_words(sum(sizes))} |" for kind, sizes in sorted(kinds.items())]
    parts = [f"## {heading}", f"**{len(removals)} things, {size_words(sum(each.bytes for each in removals))}.**"]
    if totals:
        parts += ["| what | how many | bytes |\n|---|---:|---:|\n" + "\n".join(totals)]
    if actions:
        parts += ["### In the cloud account", _actions(actions)]
    stays = [f"| {reason} | {count} |" for reason, count in kept.items()]
    parts += [
        "### What stays",
        "| because | things |\n|---|---:|\n" + "\n".join(stays) if stays else "Nothing is kept.",
    ]
    if removals:
        rows = [f"| {each.words} | {size_words(each.bytes)} |" for each in removals[:SHOWN]]
        more = f"\n\n… and {len(removals) - SHOWN} more" if len(removals) > SHOWN else ""
        parts += ["### What goes, one by one", "| what | bytes |\n|---|---:|\n" + "\n".join(rows) + more]
    return "\n\n".join(parts)


def _actions(actions: Sequence[Action]) -> str:
    rows = [f"| {each.do} | {each.name} | {each.reason} | {_saved(each)} |" for each in actions[:SHOWN]]
    return "| what | name | because | saves at most |\n|---|---|---|---|\n" + "\n".join(rows)


def _saved(action: Action) -> str:
    if action.do == "remove checkpoints":
        return size_words(action.bytes)
    if action.usd is None:
        return "no price is known"
    return f"{action.usd:,.2f} USD" + ("" if action.do in ("stop job", "stop transform") else " a day")
