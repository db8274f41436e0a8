"""Processed files, identified by content: the next load of a growing folder reads only new files.

They are recorded in the snapshot's notes, so files count as processed exactly when their rows are in the lake.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os.path import commonprefix

from blocks.common.errors import Rejected

_FILES_NOTE, _FOLDER_NOTE = "files", "files folder"


@dataclass(frozen=True)
class ProcessedFile:
    """One file: its full path or s3:// URL, its size, and its content as "sha256 …" or "etag …"."""

    name: str
    size_bytes: int
    content: str


def processed_to_notes(files: Sequence[ProcessedFile]) -> dict[str, str]:
    """Return the snapshot notes about the files that its rows came from."""
    folder = commonprefix([file.name for file in files])  # noqa: RUF071  (by letters: it is cut at a slash below)
    folder = folder[: folder.rfind("/") + 1]
    listed = [[file.name.removeprefix(folder), file.size_bytes, file.content] for file in files]
    return {_FOLDER_NOTE: folder, _FILES_NOTE: json.dumps(listed, separators=(",", ":"), ensure_ascii=False)}


def processed_from_notes(notes: Mapping[str, str]) -> tuple[ProcessedFile, ...]:
    """Return the files in a snapshot's notes; none if its rows came from another kind of source."""
    listed = json.loads(notes.get(_FILES_NOTE, "[]"))
    return tuple(ProcessedFile(f"{notes[_FOLDER_NOTE]}{name}", size, content) for name, size, content in listed)


def new_file_indexes(files: Sequence[ProcessedFile], processed: Sequence[ProcessedFile]) -> list[int]:
    """Return the indexes of the files whose content was not processed; of several with one content, the first.

    Files are identified by content, so a moved or renamed file is the same file.

    Raises:
        Rejected: a processed file was changed, so its old rows are in the lake, and no file has its old content (it
            was not just renamed).
    """
    done, contents = {file.content for file in processed}, {file.content for file in files}
    by_name = {file.name: file for file in processed}
    indexes: list[int] = []
    for index, file in enumerate(files):
        if file.content in done:
            continue
        if (earlier := by_name.get(file.name)) and earlier.content not in contents:
            raise Rejected(
                f"{file.name}: the file changed after it was ingested: it has {file.size_bytes} bytes "
                f"({_short_content(file)}), and had {earlier.size_bytes} ({_short_content(earlier)}). Restore the old "
                "content, and put new rows into a new file. Nothing was ingested."
            )
        done.add(file.content)
        indexes.append(index)
    return indexes


def _short_content(file: ProcessedFile) -> str:
    return file.content[:19] + "…"
