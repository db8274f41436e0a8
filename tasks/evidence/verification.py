"""Verify a pack of evidence without a server: each of its sixteen items is present, absent or changed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from runtime.digests import file_digest
from runtime.signatures import Unsigned, check_form, signature_file, verify
from tasks.evidence.rules.items import FORM, ITEMS, LIST, PAGE

State = Literal["present", "absent", "changed"]


@dataclass(frozen=True)
class Found:
    """What verification found: the state of each item by its key, and what is wrong with the whole, or ""."""

    items: dict[str, State]
    problem: str

    @property
    def sound(self) -> bool:
        """Whether every item is there, and as it was signed."""
        return not self.problem and set(self.items.values()) == {"present"}


def check_pack(place: Path, keys: Sequence[str]) -> Found:
    """Verify a pack against the pinned keys: its files against the signature, each item against the list."""
    pack = place / "pack" if (place / "pack").is_dir() else place
    problem = _problem(pack, keys)
    return Found({item.key: _state(pack, item.key) for item in ITEMS}, problem)


def _problem(pack: Path, keys: Sequence[str]) -> str:
    try:
        check_form(signature_file(pack).read_text(encoding="utf-8"))
        verify(pack, keys)
        listed = json.loads((pack / LIST).read_text(encoding="utf-8"))
        return "" if listed["form"] == FORM and (pack / PAGE).is_file() else f"{LIST} is of another form, or no page"
    except Unsigned as no:
        return str(no)
    except (OSError, ValueError, KeyError, TypeError) as cause:
        return f"the pack cannot be read: {cause}"


def _state(pack: Path, key: str) -> State:
    try:
        listed = json.loads((pack / LIST).read_text(encoding="utf-8"))["items"]
        entry: dict[str, Any] = next(each for each in listed if each["key"] == key)
        files, expected = dict(entry["files"]), set(entry["expected"])
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return "absent"
    if any((pack / name).is_file() and file_digest(pack / name) != digest for name, digest in files.items()):
        return "changed"
    there = {name for name in files if (pack / name).is_file()}
    return "present" if files and set(files) | expected == there else "absent"


def report(place: Path, found: Found) -> str:
    """Return a line for each item, and one for the whole."""
    lines = [f"{number:>2}. {item.title:<55} {found.items[item.key]}" for number, item in enumerate(ITEMS, 1)]
    whole = "sound: signed by a pinned key, every item present" if found.sound else "WRONG"
    return "\n".join([*lines, f"{place}: {whole}{': ' + found.problem if found.problem else ''}"])
