"""SHA-256 of files and folders: how every port names the exact bytes that it holds."""

import hashlib
from pathlib import Path


def file_digest(path: Path) -> str:
    """Return the SHA-256 of the file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_digest(folder: Path) -> str:
    """Return one SHA-256 over the relative names and contents of all files below `folder`.

    The digest is that of the lines `<sha256>  <relative/posix/path>\\n` in the order of the paths' bytes:
    what `sha256sum` prints, so that anyone can check it without us. Empty folders do not count.
    """
    files = sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file())
    listing = "".join(f"{file_digest(path)}  {name}\n" for name, path in files)
    return hashlib.sha256(listing.encode()).hexdigest()
