"""A segment of the inference log on disk: lines are appended to a hidden file, which becomes one compressed file."""

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
    """A segment that is being written. Its lines survive a crash of the process as soon as `append` returns."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = folder / f"{_OPEN_PREFIX}{name}.jsonl"
        self.bytes = 0
        self._opened_at = monotonic()
        self._file = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600)

    def age(self) -> float:
        """Return the seconds since the segment was opened."""
        return monotonic() - self._opened_at

    def append(self, line: bytes) -> None:
        """Add a line, or raise OSError and leave the file unchanged, also if the disk becomes full within the line."""
        done = 0
        try:
            while done < len(line):
                done += os.write(self._file, line[done:])
        except OSError:
            os.ftruncate(self._file, self.bytes)
            raise
        self.bytes += len(line)

    def close(self) -> None:
        """Close the file and create the segment."""
        os.close(self._file)
        close_segment(self.path)


def close_left_segments(root: Path) -> None:
    """Create segments from the open files of an earlier process; an incomplete last line is dropped."""
    for path in root.glob(f"*/{_OPEN_PREFIX}*.jsonl"):
        try:
            close_segment(path)
        except OSError as cause:
            _log.error("no segment can be created from %s: %s", path, cause)


def close_segment(open_file: Path) -> None:
    """Compress an open file, flush it, and rename it to the segment's name; a repeat creates the same segment.

    If the process dies after the rename, the next start creates the same segment with the same name; the collector uses
    the name as its key, so nothing is ingested twice.
    """
    lines = open_file.read_bytes()
    complete = lines[: lines.rfind(b"\n") + 1]
    if complete:
        segment = open_file.with_name(open_file.stem.removeprefix(_OPEN_PREFIX) + SEGMENT_SUFFIX)
        temporary = segment.with_name(f".closing-{segment.name}")
        with temporary.open("wb") as stream:
            stream.write(gzip.compress(complete, compresslevel=1, mtime=0))
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(segment)
    open_file.unlink()


def used_bytes(root: Path) -> int:
    """Return the size of all segments; a segment that is deleted meanwhile does not count."""
    used = 0
    for path in root.glob(f"*/*{SEGMENT_SUFFIX}"):
        with suppress(FileNotFoundError):
            used += path.stat().st_size
    return used
