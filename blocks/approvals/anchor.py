"""The anchored head: a file outside the database in which the signer records the last chain entry that it signed.

An attacker with write access to the database can delete the last rows of a chain, and the rest is still a valid chain.
So the file is beside the signing key. It is written before the row is committed (`pending`) and again after: a crash
between the two raises no alarm, and the loss of a confirmed row is detected.
"""

import fcntl
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from blocks.approvals.chain import ChainHead
from blocks.common.errors import Corrupt
from blocks.records.approvals import ChainEntry
from runtime.files import write_text_atomically

EMPTY_HEAD = ChainHead(0, "")


def read_anchored_head(path: Path) -> ChainHead:
    """Return the confirmed head; number 0 if nothing was signed yet. Raises Corrupt if the file cannot be read."""
    return _read_note(path)[0]


@contextmanager
def hold_anchored_head(
    path: Path | None, link_at: Callable[[int], ChainEntry | None]
) -> Iterator[Callable[[ChainEntry], None]]:
    """Lock the file while a link is made. The caller passes the link to the yielded function, and then commits it.

    Raises:
        Corrupt: the ledger lacks the confirmed head: rows were deleted or exchanged. Nothing is signed.
    """
    if path is None:
        yield lambda link: None
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.with_name(f"{path.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        confirmed, pending = _read_note(path)
        if pending and (link := link_at(pending.number)) is not None and link.hash == pending.hash:
            confirmed = pending  # the process died after the commit
        check_anchored_head(confirmed, link_at)
        made: list[ChainEntry] = []

        def note(link: ChainEntry) -> None:
            made.append(link)
            _write_note(path, confirmed, ChainHead(link.number, link.hash))

        yield note
        if made:
            _write_note(path, ChainHead(made[-1].number, made[-1].hash), None)


def check_anchored_head(head: ChainHead, link_at: Callable[[int], ChainEntry | None]) -> None:
    """Raise Corrupt if the ledger does not contain the link of the head."""
    if not head.number:
        return
    link = link_at(head.number)
    if link is None or link.hash != head.hash:
        problem = "is missing" if link is None else f"has the hash {link.hash[:12]}…"
        raise Corrupt(
            f"ledger: decision {head.number} {problem}; the anchored head says {head.hash[:12]}…. Rows were cut off or "
            "exchanged: restore the database, and see python -m ratchet audit verify."
        )


def _read_note(path: Path) -> tuple[ChainHead, ChainHead | None]:
    try:
        note = json.loads(path.read_text())
        pending = ChainHead(**note["pending"]) if note["pending"] else None
        return ChainHead(**note["head"]), pending
    except FileNotFoundError:
        return EMPTY_HEAD, None
    except (ValueError, KeyError, TypeError) as cause:
        raise Corrupt(f"the anchored head {path} cannot be read; restore it, or sign under a new key") from cause


def _write_note(path: Path, head: ChainHead, pending: ChainHead | None) -> None:
    note = {"head": vars(head), "pending": vars(pending) if pending else None}
    write_text_atomically(path, json.dumps(note), mode=0o600)
