"""Verify an evidence pack without a server: each of its sixteen items is present, absent or changed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from runtime.digests import file_digest
from runtime.signatures import UntrustedSignature, check_form, signature_file, verify_folder
from tasks.evidence.rules.page import EVIDENCE_ITEMS, ITEMS_FILE, PACK_FORMAT, PAGE_FILE

ItemState = Literal["present", "absent", "changed"]


@dataclass(frozen=True)
class PackVerification:
    """The result of a verification: the state of each item by its key, and the problem of the whole pack, or ""."""

    items: dict[str, ItemState]
    problem: str

    @property
    def valid(self) -> bool:
        """Whether every item is present and as it was signed."""
        return not self.problem and set(self.items.values()) == {"present"}


def verify_pack(place: Path, keys: Sequence[str]) -> PackVerification:
    """Verify the files of a pack against its signature and the pinned keys, and each item against the signed list."""
    pack = place / "pack" if (place / "pack").is_dir() else place
    problem = _signature_problem(pack, keys)
    return PackVerification({item.key: _item_state(pack, item.key) for item in EVIDENCE_ITEMS}, problem)


def _signature_problem(pack: Path, keys: Sequence[str]) -> str:
    try:
        check_form(signature_file(pack).read_text(encoding="utf-8"))
        verify_folder(pack, keys)
        listed = json.loads((pack / ITEMS_FILE).read_text(encoding="utf-8"))
        return (
            ""
            if listed["form"] == PACK_FORMAT and (pack / PAGE_FILE).is_file()
            else f"{ITEMS_FILE} has another format, or {PAGE_FILE} is missing"
        )
    except UntrustedSignature as no:
        return str(no)
    except (OSError, ValueError, KeyError, TypeError) as cause:
        return f"the pack cannot be read: {cause}"


def _item_state(pack: Path, key: str) -> ItemState:
    try:
        listed = json.loads((pack / ITEMS_FILE).read_text(encoding="utf-8"))["items"]
        entry: dict[str, Any] = next(each for each in listed if each["key"] == key)
        files, expected = dict(entry["files"]), set(entry["expected"])
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return "absent"
    if any((pack / name).is_file() and file_digest(pack / name) != digest for name, digest in files.items()):
        return "changed"
    existing = {name for name in files if (pack / name).is_file()}
    return "present" if files and set(files) | expected == existing else "absent"


def report(place: Path, verification: PackVerification) -> str:
    """Return one line for each item, and one for the whole pack."""
    lines = [
        f"{number:>2}. {item.title:<55} {verification.items[item.key]}" for number, item in enumerate(EVIDENCE_ITEMS, 1)
    ]
    whole = "sound: signed by a pinned key, every item present" if verification.valid else "WRONG"
    return "\n".join([*lines, f"{place}: {whole}{': ' + verification.problem if verification.problem else ''}"])
