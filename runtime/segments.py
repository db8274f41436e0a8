"""A segment of the inference log on disk: lines appended to a hidden file, then one whole, compressed file."""

import gzip
import logging
import os
from contextlib import suppress
from pathlib import Path
from time import monotonic

_log = logging.getLogger("ratchet.inference_log")

SEGMENT_SUFFIX = ".jsonl.gz"
_OPEN_PREFIX = ".begun-"


class OpenSegment:
    """A segment that is being written. Its lines are the kernel's as soon as `append` returns."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = folder / f"{_OPEN_PREFIX}{name}.jsonl"
        self.bytes = 0
        self._opened_at = monotonic()
        self._file = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600)

    def age(self) -> float:
        """Return the seconds since it was begun."""
        return monotonic() - self._opened_at

    def append(self, line: bytes) -> None:
        """Add a line, or raise OSError and leave the file as it was: a disk may take half a line before it is full."""
        done = 0
        try:
            while done < len(line):
                done += os.write(self._file, line[done:])
        except OSError:
            os.ftruncate(self._file, self.bytes)
            raise
        self.bytes += len(line)

    def close(self) -> None:
        """Make it a segment."""
        os.close(self._file)
        close_segment(self.path)


def close_left_segments(root: Path) -> None:
    """Make segments of what an earlier process had begun; a last line that it did not end is left out."""
    for path in root.glob(f"*/{_OPEN_PREFIX}*.jsonl"):
        try:
            close_segment(path)
        except OSError as cause:
            _log.error("%s cannot be made a segment: %s", path, cause)


def close_segment(begun: Path) -> None:
    """Compress what was begun, flush it, and show it under its name; a repeat makes the same segment.

    The name is the collector's key: when this is cut short after the segment was shown, the next start shows it
    once more under the same name, and nothing lands twice.
    """
    lines = begun.read_bytes()
    whole = lines[: lines.rfind(b"\n") + 1]
    if whole:
        shown = begun.with_name(begun.stem.removeprefix(_OPEN_PREFIX) + SEGMENT_SUFFIX)
        beside = shown.with_name(f".closing-{shown.name}")
        with beside.open("wb") as stream:
            stream.write(gzip.compress(whole, compresslevel=1, mtime=0))
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(shown)
    begun.unlink()


def used_bytes(root: Path) -> int:
    """Return the size of all segments; one that is collected meanwhile does not count."""
    used = 0
    for path in root.glob(f"*/*{SEGMENT_SUFFIX}"):
        with suppress(FileNotFoundError):
            used += path.stat().st_size
    return used
