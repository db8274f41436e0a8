"""Files that have landed, by name and content: of a folder that grows, the next load takes only what is new.

What a load took stands in its snapshot's notes, so it is known exactly when the rows are there.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os.path import commonprefix

from blocks.common.errors import Rejected

_NOTE, _WITHIN = "files", "files within"


@dataclass(frozen=True)
class Taken:
    """One file: its path or s3:// address in full, its size, and its content as "sha256 …" or "etag …"."""

    name: str
    bytes: int
    content: str


def notes_of(files: Sequence[Taken]) -> dict[str, str]:
    """Return what a snapshot has to remember of the files that its rows came from."""
    within = commonprefix([file.name for file in files])  # noqa: RUF071  (by letters: it is cut at a slash below)
    within = within[: within.rfind("/") + 1]
    listed = [[file.name.removeprefix(within), file.bytes, file.content] for file in files]
    return {_WITHIN: within, _NOTE: json.dumps(listed, separators=(",", ":"), ensure_ascii=False)}


def taken_by(notes: Mapping[str, str]) -> tuple[Taken, ...]:
    """Return the files that a snapshot's notes name; none when it came from something else."""
    listed = json.loads(notes.get(_NOTE, "[]"))
    return tuple(Taken(f"{notes[_WITHIN]}{name}", size, content) for name, size, content in listed)


def new_places(files: Sequence[Taken], taken: Sequence[Taken]) -> list[int]:
    """Return the places of the files whose content has not been taken; of several with one content, the first.

    A file is known by its content: that it was moved or renamed makes it no other.

    Raises:
        Rejected: a file was taken, and has changed since: its old rows are in the lake. What it was is nowhere
            else among the files, so that it was not just renamed to make room.
    """
    landed, there = {file.content: file for file in taken}, {file.content for file in files}
    before = {file.name: file for file in taken}
    places: list[int] = []
    for place, file in enumerate(files):
        if file.content in landed:
            continue
        if (known := before.get(file.name)) and known.content not in there:
            raise Rejected(
                f"{file.name}: the file changed after its rows had landed: it has {file.bytes} bytes ({_brief(file)}), "
                f"and had {known.bytes} ({_brief(known)}). Put it back as it was, and bring new rows in a file of "
                "another name. Nothing landed."
            )
        landed[file.content] = file
        places.append(place)
    return places


def _brief(file: Taken) -> str:
    return file.content[:19] + "…"
