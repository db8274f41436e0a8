"""Files that have landed, by name and content: of a folder that grows, the next load takes only what is new.

What a load took stands in its snapshot's notes, so it is known exactly when the rows are there.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os.path import commonprefix

from blocks.common.errors import Rejected

_FILES_NOTE, _FOLDER_NOTE = "files", "files within"


@dataclass(frozen=True)
class ProcessedFile:
    """One file: its path or s3:// address in full, its size, and its content as "sha256 …" or "etag …"."""

    name: str
    size_bytes: int
    content: str


def processed_to_notes(files: Sequence[ProcessedFile]) -> dict[str, str]:
    """Return what a snapshot has to remember of the files that its rows came from."""
    within = commonprefix([file.name for file in files])  # noqa: RUF071  (by letters: it is cut at a slash below)
    within = within[: within.rfind("/") + 1]
    listed = [[file.name.removeprefix(within), file.size_bytes, file.content] for file in files]
    return {_FOLDER_NOTE: within, _FILES_NOTE: json.dumps(listed, separators=(",", ":"), ensure_ascii=False)}


def processed_from_notes(notes: Mapping[str, str]) -> tuple[ProcessedFile, ...]:
    """Return the files that a snapshot's notes name; none when it came from something else."""
    listed = json.loads(notes.get(_FILES_NOTE, "[]"))
    return tuple(ProcessedFile(f"{notes[_FOLDER_NOTE]}{name}", size, content) for name, size, content in listed)


def new_file_indexes(files: Sequence[ProcessedFile], processed: Sequence[ProcessedFile]) -> list[int]:
    """Return the places of the files whose content has not been taken; of several with one content, the first.

    A file is known by its content: that it was moved or renamed makes it no other.

    Raises:
        Rejected: a file was taken, and has changed since: its old rows are in the lake. What it was is nowhere
            else among the files, so that it was not just renamed to make room.
    """
    landed, there = {file.content: file for file in processed}, {file.content for file in files}
    before = {file.name: file for file in processed}
    places: list[int] = []
    for place, file in enumerate(files):
        if file.content in landed:
            continue
        if (known := before.get(file.name)) and known.content not in there:
            raise Rejected(
                f"{file.name}: the file changed after its rows had landed: it has {file.size_bytes} bytes ({_short_content(file)}), "
                f"and had {known.size_bytes} ({_short_content(known)}). Put it back as it was, and bring new rows in a file of "
                "another name. Nothing landed."
            )
        landed[file.content] = file
        places.append(place)
    return places


def _short_content(file: ProcessedFile) -> str:
    return file.content[:19] + "…"
