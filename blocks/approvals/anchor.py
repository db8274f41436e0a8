"""The anchored head: the signer's own note, outside the database, of the last link that it signed.

Whoever can write to the database can cut rows off the end of a chain, and what is left is still a chain. The
note lies beside the signing key. It is written before the row is committed (`pending`) and again after, so that a
crash between the two is no alarm, and a row that was confirmed is missed when it is gone.
"""

import fcntl
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from blocks.approvals.base import Link
from blocks.approvals.chain import Head
from blocks.common.errors import Corrupt
from runtime.files import write_text_atomically

NOTHING = Head(0, "")


def read_head(path: Path) -> Head:
    """Return the confirmed head; the beginning when nothing was ever signed. Raises Corrupt when it is no note."""
    return _read(path)[0]


@contextmanager
def anchored(path: Path | None, link_at: Callable[[int], Link | None]) -> Iterator[Callable[[Link], None]]:
    """Hold the note while a link is made; the caller calls what it gets with the link, and then commits.

    Raises:
        Corrupt: the ledger lacks the head that was confirmed: rows were cut off or exchanged. Nothing is signed.
    """
    if path is None:
        yield lambda link: None
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.with_name(f"{path.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        confirmed, pending = _read(path)
        if pending and (there := link_at(pending.number)) is not None and there.hash == pending.hash:
            confirmed = pending  # committed, and then the process died
        check_head(confirmed, link_at)
        made: list[Link] = []

        def note(link: Link) -> None:
            made.append(link)
            _write(path, confirmed, Head(link.number, link.hash))

        yield note
        if made:
            _write(path, Head(made[-1].number, made[-1].hash), None)


def check_head(head: Head, link_at: Callable[[int], Link | None]) -> None:
    """Raise Corrupt when the ledger does not hold the link that the head names."""
    if not head.number:
        return
    there = link_at(head.number)
    if there is None or there.hash != head.hash:
        found = "is gone" if there is None else f"has the hash {there.hash[:12]}…"
        raise Corrupt(
            f"ledger: decision {head.number} {found}; the anchored head says {head.hash[:12]}…. Rows were cut off or "
            "exchanged: restore the database, and see python -m ratchet audit verify."
        )


def _read(path: Path) -> tuple[Head, Head | None]:
    try:
        note = json.loads(path.read_text())
        pending = Head(**note["pending"]) if note["pending"] else None
        return Head(**note["head"]), pending
    except FileNotFoundError:
        return NOTHING, None
    except (ValueError, KeyError, TypeError) as cause:
        raise Corrupt(f"the anchored head {path} cannot be read; restore it, or sign under a new key") from cause


def _write(path: Path, head: Head, pending: Head | None) -> None:
    note = {"head": vars(head), "pending": vars(pending) if pending else None}
    write_text_atomically(path, json.dumps(note), mode=0o600)
