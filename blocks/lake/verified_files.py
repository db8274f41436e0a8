"""Files checked against their SHA-256: once, and again whenever they may have changed or a week has passed.

What was found right is remembered with the file's fingerprint: in memory and, where the store has a folder for
it, on the disk, so that the next process need not hash the whole lake again.
"""

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from blocks.common.errors import Corrupt
from blocks.lake.object_store import ObjectStore
from blocks.lake.read_plan import PlannedFile
from runtime.files import write_text_atomically

_RECHECK_SECONDS = 7 * 24 * 3_600.0
_THREADS = 2
_MAX_STALE_LINES = 10_000


class VerifiedFiles:
    """What is known to be as it was written. `memory` is a file of JSON lines, or None to forget with the process."""

    def __init__(self, store: ObjectStore, cache_file: Path | None) -> None:
        self._store = store
        self._memory = cache_file
        self._known: dict[str, tuple[str, str, float]] = {}  # key -> fingerprint, SHA-256, time
        self._loaded = cache_file is None

    def check(self, pieces: Sequence[PlannedFile]) -> None:
        """Return when all files are as they were written: `Corrupt` names one that is not, or is gone."""
        with ThreadPoolExecutor(_THREADS if len(pieces) > 1 else 1) as pool:
            lines = [line for line in pool.map(self._check, pieces) if line]
        self._append(lines)

    def remember(self, keys: Sequence[tuple[str, str]]) -> None:
        """Note files just written: (key, SHA-256)."""
        self._append([self._note(key, self._store.fingerprint(key) or "", sha256) for key, sha256 in keys])

    def _check(self, piece: PlannedFile) -> str | None:
        found = self._store.fingerprint(piece.key)
        where = self._store.url(piece.key)
        if found is None:
            raise Corrupt(f"{where}: the file is gone. Restore it from a copy; nothing was read.")
        if self._is_known(piece, found):
            return None
        try:
            digest = self._store.sha256(piece.key)
        except FileNotFoundError as cause:
            raise Corrupt(f"{where}: the file is gone. Restore it from a copy; nothing was read.") from cause
        if digest != piece.file.sha256:
            raise Corrupt(
                f"{where}: checksum mismatch: SHA-256 is {digest[:12]}…, the manifest says {piece.file.sha256[:12]}…. "
                "Restore the file from a copy; nothing of it was used."
            )
        return self._note(piece.key, found, digest)

    def _is_known(self, piece: PlannedFile, fingerprint: str) -> bool:
        if piece.key not in self._known and not self._loaded:
            self._load()
        known, sha256, when = self._known.get(piece.key, ("", "", 0.0))
        return (known, sha256) == (fingerprint, piece.file.sha256) and 0 <= time.time() - when < _RECHECK_SECONDS

    def _note(self, key: str, fingerprint: str, sha256: str) -> str:
        self._known[key] = fingerprint, sha256, time.time()
        return json.dumps([key, *self._known[key]])

    def _load(self) -> None:
        self._loaded = True
        if self._memory is None or not self._memory.is_file():
            return
        lines = self._memory.read_text(errors="replace").splitlines()
        found: dict[str, tuple[str, str, float]] = {}
        for line in lines:
            with suppress(ValueError, TypeError):  # a broken line only means that its file is hashed again
                key, fingerprint, sha256, when = json.loads(line)
                found[key] = str(fingerprint), str(sha256), float(when)
        self._known = found | self._known
        if len(lines) > _MAX_STALE_LINES + 2 * len(found):
            write_text_atomically(
                self._memory, "".join(f"{json.dumps([key, *known])}\n" for key, known in self._known.items())
            )

    def _append(self, lines: Sequence[str]) -> None:
        if self._memory is None or not lines:
            return
        with suppress(OSError):  # a lake that may only be read is hashed anew by each process
            self._memory.parent.mkdir(parents=True, exist_ok=True)
            with self._memory.open("a") as stream:
                stream.write("".join(f"{line}\n" for line in lines))
