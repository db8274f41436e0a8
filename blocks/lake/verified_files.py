"""Verifies files against their SHA-256: once, and again when they may have changed or after a week.

The result is cached with the file's fingerprint in memory and, if the store has a folder for it, on disk, so that the
next process need not hash the whole lake again.
"""

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from blocks.common.errors import Corrupt
from blocks.lake.object_store import ObjectStore
from blocks.lake.reading import PlannedFile
from runtime.files import write_text_atomically

_RECHECK_SECONDS = 7 * 24 * 3_600.0
_THREADS = 2
_MAX_STALE_LINES = 10_000


class VerifiedFiles:
    """Files whose SHA-256 was verified. `cache_file` has them as JSON lines; None keeps them in memory only."""

    def __init__(self, store: ObjectStore, cache_file: Path | None) -> None:
        self._store = store
        self._cache_file = cache_file
        self._verified: dict[str, tuple[str, str, float]] = {}  # fingerprint, SHA-256 and time by key
        self._loaded = cache_file is None

    def check(self, files: Sequence[PlannedFile]) -> None:
        """Verify all files. Raises Corrupt, with the name, for one that was changed or is missing."""
        with ThreadPoolExecutor(_THREADS if len(files) > 1 else 1) as pool:
            lines = [line for line in pool.map(self._check, files) if line]
        self._append(lines)

    def remember(self, keys: Sequence[tuple[str, str]]) -> None:
        """Record files that were just written, as (key, SHA-256)."""
        self._append([self._record(key, self._store.fingerprint(key) or "", sha256) for key, sha256 in keys])

    def _check(self, planned: PlannedFile) -> str | None:
        fingerprint = self._store.fingerprint(planned.key)
        url = self._store.url(planned.key)
        if fingerprint is None:
            raise Corrupt(f"{url}: the file is missing. Restore it from a copy; nothing was read.")
        if self._is_verified(planned, fingerprint):
            return None
        try:
            digest = self._store.sha256(planned.key)
        except FileNotFoundError as cause:
            raise Corrupt(f"{url}: the file is missing. Restore it from a copy; nothing was read.") from cause
        if digest != planned.file.sha256:
            raise Corrupt(
                f"{url}: checksum mismatch: SHA-256 is {digest[:12]}…, the manifest says {planned.file.sha256[:12]}…. "
                "Restore the file from a copy; nothing of it was used."
            )
        return self._record(planned.key, fingerprint, digest)

    def _is_verified(self, planned: PlannedFile, fingerprint: str) -> bool:
        if planned.key not in self._verified and not self._loaded:
            self._load()
        recorded, sha256, when = self._verified.get(planned.key, ("", "", 0.0))
        is_recent = 0 <= time.time() - when < _RECHECK_SECONDS
        return (recorded, sha256) == (fingerprint, planned.file.sha256) and is_recent

    def _record(self, key: str, fingerprint: str, sha256: str) -> str:
        self._verified[key] = fingerprint, sha256, time.time()
        return json.dumps([key, *self._verified[key]])

    def _load(self) -> None:
        self._loaded = True
        if self._cache_file is None or not self._cache_file.is_file():
            return
        lines = self._cache_file.read_text(errors="replace").splitlines()
        loaded: dict[str, tuple[str, str, float]] = {}
        for line in lines:
            with suppress(ValueError, TypeError):  # the file of a broken line is hashed again
                key, fingerprint, sha256, when = json.loads(line)
                loaded[key] = str(fingerprint), str(sha256), float(when)
        self._verified = loaded | self._verified
        if len(lines) > _MAX_STALE_LINES + 2 * len(loaded):
            text = "".join(f"{json.dumps([key, *record])}\n" for key, record in self._verified.items())
            write_text_atomically(self._cache_file, text)

    def _append(self, lines: Sequence[str]) -> None:
        if self._cache_file is None or not lines:
            return
        with suppress(OSError):  # with a read-only lake each process hashes the files again
            self._cache_file.parent.mkdir(parents=True, exist_ok=True)
            with self._cache_file.open("a") as stream:
                stream.write("".join(f"{line}\n" for line in lines))
