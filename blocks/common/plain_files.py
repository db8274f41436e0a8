"""Folders that people hand in, such as `models/<name>`: regular files, read into memory without following a link.

Whoever uses such a folder (trainers, evidence packs, readers) takes the bytes that `read_folder` returned, and never
opens it again by path. Each name is opened below the handle of its folder, and refused if it is a link, so a link that
is put there in between changes nothing.
"""

import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from blocks.common.errors import NotFound, Rejected

MAX_FILES, MAX_FILE_BYTES, MAX_FOLDER_BYTES, MAX_DEPTH = 1_000, 16 * 2**20, 64 * 2**20, 16
"""Bounds of a folder: its files, the bytes of one and of all of them, and how deep folders may lie in each other."""

_LEFT_OUT: Final = "__pycache__"
_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_SECRET_NAME = re.compile(
    r"(.*\.(pem|key|p12|pfx|jks|keystore|kdbx|ppk|env)|id_(rsa|dsa|ecdsa|ed25519)|(credentials|secrets?)(\.\w+)?|\.?netrc)"
    r"(\.(bak|old|orig|save|copy|\d+)|~)*",
    re.IGNORECASE,
)
_SECRET_CONTENT = re.compile(rb"-{4,5} ?BEGIN [A-Z0-9 ]*PRIVATE KEY( BLOCK)? ?-{4,5}|PuTTY-User-Key-File-\d")


def read_folder(folder: Path) -> dict[str, bytes]:
    """Return the content of all files below a folder by their relative POSIX paths, sorted.

    Compiled Python and files and folders whose names begin with a dot are left out.

    Raises:
        NotFound: there is no such folder.
        Rejected: the folder, or the one around it, is a link; something in it is a link, a device, a pipe, a socket or
            a file with a second name elsewhere; two names differ only in case; a name has control characters; the
            folder is a repository of its own; a file looks like a key; or the folder is too large.
    """
    files: dict[str, bytes] = {}
    with _opened(folder) as handle:
        _read_below(handle, "", files, folder)
    return dict(sorted(files.items()))


def read_file(folder: Path, name: str) -> bytes | None:
    """Return the content of one file of a folder, or None if there is none. Raises as `read_folder` does."""
    with _opened(folder) as handle:
        return _read(handle, name, name, folder) if name in os.listdir(handle) else None  # noqa: PTH208  (of a handle)


def holds_private_key(content: bytes) -> bool:
    """Whether a private key in the form of PEM, PGP, SSH2 or PuTTY stands in the content, as ASCII or UTF-16."""
    return bool(_SECRET_CONTENT.search(content.replace(b"\0", b"")))


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """Open a folder; neither it nor the one around it (`models/`) may be a link."""
    place = folder.absolute()
    handle = os.open(place.parent.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in (place.parent.name, place.name):
            inner = _open(handle, name or ".", os.O_DIRECTORY, folder, "")
            os.close(handle)
            handle = inner
        yield handle
    finally:
        os.close(handle)


def _open(handle: int, name: str, flags: int, folder: Path, shown: str) -> int:
    try:
        return os.open(name, _FLAGS | flags, dir_fd=handle)
    except FileNotFoundError as cause:
        raise NotFound(f"{folder / shown} does not exist. Check the path.") from cause
    except OSError as cause:
        raise _refused(folder, shown, "is a link, or cannot be opened", _PUT_ITSELF) from cause


def _read_below(handle: int, prefix: str, files: dict[str, bytes], folder: Path) -> None:
    if prefix.count("/") > MAX_DEPTH:
        raise _refused(folder, prefix[:80], f"lies more than {MAX_DEPTH} folders deep", "Move it up")
    names = sorted(os.listdir(handle))
    _check_names(names, prefix, folder)
    for name in names:
        path = prefix + name
        kind = os.stat(name, dir_fd=handle, follow_symlinks=False).st_mode
        hidden = name == _LEFT_OUT or name.startswith(".")
        if stat.S_ISDIR(kind):
            if not hidden:
                inner = _open(handle, name, os.O_DIRECTORY, folder, path)
                try:
                    _read_below(inner, f"{path}/", files, folder)
                finally:
                    os.close(inner)
        elif not stat.S_ISREG(kind):
            raise _refused(folder, path, "is a link, a device, a pipe or a socket", _PUT_ITSELF)
        elif not hidden:
            files[path] = _read(handle, name, path, folder)
            _check_bounds(files, folder)


def _check_names(names: list[str], prefix: str, folder: Path) -> None:
    if len(names) > MAX_FILES:
        raise _refused(folder, prefix, f"has more than {MAX_FILES:,} files", _MOVE_OUT)
    seen: dict[str, str] = {}
    for name in names:
        if not name.isprintable():
            shown = ascii(prefix + name)
            raise _refused(folder, shown, "has control characters in its name, or one that is not UTF-8", "Rename it")
        if name == ".git":
            remedy = "Move its files into this one: commit and patch would not cover them"
            raise _refused(folder, prefix + name, "is a repository inside the repository", remedy)
        same = unicodedata.normalize("NFKC", name).casefold()
        if same in seen:
            raise _refused(folder, prefix + name, f"and {seen[same]!r} differ only in case", "Rename one of the two")
        seen[same] = name


def _read(handle: int, name: str, path: str, folder: Path) -> bytes:
    if not stat.S_ISREG(os.stat(name, dir_fd=handle, follow_symlinks=False).st_mode):  # opening a device may act
        raise _refused(folder, path, "is a link, a device, a pipe or a socket", _PUT_ITSELF)
    if _SECRET_NAME.fullmatch(name):
        raise _refused(folder, path, "looks like a key or a password by its name", _KEEP_SECRETS_OUT)
    opened = _open(handle, name, 0, folder, path)
    with os.fdopen(opened, "rb") as stream:
        status = os.fstat(opened)  # of what was opened, whatever was swapped in since the check above
        if not stat.S_ISREG(status.st_mode):
            raise _refused(folder, path, "is no regular file", _PUT_ITSELF)
        if status.st_nlink > 1:
            raise _refused(folder, path, "has a second name elsewhere (a hard link)", "Replace it by a copy")
        content = stream.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        remedy = "Ingest data into the lake, and let the program make what is large"
        raise _refused(folder, path, f"has more than {MAX_FILE_BYTES:,} bytes", remedy)
    if holds_private_key(content):
        raise _refused(folder, path, "holds a private key", _KEEP_SECRETS_OUT)
    return content


_PUT_ITSELF = "Put the file or folder itself there"
_MOVE_OUT = "Move those out that the program does not need"
_KEEP_SECRETS_OUT = "Move it out: the files of this folder are copied to jobs and into evidence"


def _check_bounds(files: dict[str, bytes], folder: Path) -> None:
    if len(files) > MAX_FILES:
        raise _refused(folder, "", f"has more than {MAX_FILES:,} files", _MOVE_OUT)
    if sum(map(len, files.values())) > MAX_FOLDER_BYTES:
        raise _refused(folder, "", f"has files of more than {MAX_FOLDER_BYTES:,} bytes together", _MOVE_OUT)


def _refused(folder: Path, path: str, problem: str, remedy: str) -> Rejected:
    place = "/".join(folder.absolute().parts[-2:])
    return Rejected(f"{place}/{path}".rstrip("/") + f" {problem}. {remedy}.")
