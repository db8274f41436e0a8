"""SHA-256 of texts, files and folders, used by all parts of the project.

Files are read in chunks. All digests are 64 lower-case hexadecimal digits.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path


def bytes_digest(content: bytes) -> str:
    """Return the SHA-256 of bytes in memory."""
    return hashlib.sha256(content).hexdigest()


def text_digest(text: str, errors: str = "strict") -> str:
    """Return the SHA-256 of a text in UTF-8; `errors` handles lone surrogates, as in `str.encode`.

    Raises:
        UnicodeEncodeError: the text has lone surrogates, and `errors` is "strict".
    """
    return bytes_digest(text.encode(errors=errors))


def file_digest(path: Path) -> str:
    """Return the SHA-256 of the file's bytes. Raises OSError if it cannot be read."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def file_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of all files below `folder` by their relative POSIX paths, in the order of those paths' bytes.

    Empty folders do not count.
    """
    paths = (path for path in folder.rglob("*") if path.is_file())
    names = sorted((path.relative_to(folder).as_posix(), path) for path in paths)
    return {name: file_digest(path) for name, path in names}


def listing_digest(files: Mapping[str, str]) -> str:
    """Return one SHA-256 for files given as SHA-256 by relative path, in any order.

    It is the SHA-256 of the lines `<sha256>  <relative/posix/path>\\n` in the order of the paths' bytes, the output of
    `sha256sum`, so that anyone can check it without this program.
    """
    return text_digest("".join(f"{digest}  {name}\n" for name, digest in sorted(files.items())))


def folder_digest(folder: Path) -> str:
    """Return one SHA-256 over the relative names and contents of files below `folder`: see `file_digests`."""
    return listing_digest(file_digests(folder))
