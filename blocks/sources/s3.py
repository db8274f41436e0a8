"""Objects in S3 as sources: downloaded in exactly the listed version, then read like files.

Endpoint, region and credentials come from the AWS SDK's configuration (`AWS_ENDPOINT_URL`, a role, a profile).
"""

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from blocks.common.aws.clients import error_code
from blocks.common.errors import NotFound, PortError, Rejected, Unavailable
from blocks.common.source_settings import SourceSettings
from blocks.sources.base import RowBatch, Source, declaration_text
from blocks.sources.dialects import PLAIN_FORMAT, SourceFormat, data_suffix, is_compressed
from blocks.sources.file_listing import (
    GLOB_CHARACTERS,
    POSITION_UNITS,
    ProcessedFile,
    SourceFile,
    check_no_table,
    constants_text,
    list_files,
    new_file_indexes,
    partition_values,
    processed_to_notes,
)
from blocks.sources.files import FileSource
from blocks.sources.secret_addresses import masked
from runtime.digests import text_digest

_CHUNK = 1 << 20
_BUCKET = re.compile(r"[A-Za-z0-9._-]+")
_PERMISSION_CODES = {"AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "Forbidden"}
_NOT_FOUND_CODES = {"NoSuchBucket", "NoSuchKey", "404", "NotFound"}


@dataclass(frozen=True)
class _ListedObject:
    key: str
    etag: str
    size_bytes: int


class S3Source(Source):
    """The rows of the objects of an address; `FileSource` describes how each is read, and `processed`."""

    def __init__(
        self,
        source: str,
        query: str,
        kinds: Mapping[str, str],
        allowed: SourceSettings,
        scratch: Path | None,
        processed: Sequence[ProcessedFile] | None,
        format_: SourceFormat = PLAIN_FORMAT,
    ) -> None:
        bucket, key = parse_s3_url(source)
        if query:
            raise Rejected(f"{source!r} is in S3; a query is for a database. Leave the query empty.")
        self.kinds, self._bucket, self._scratch, self._format = kinds, bucket, scratch, format_
        self._named = f"s3://{bucket}/{key}"
        pattern = bool(GLOB_CHARACTERS & set(key))
        allowed.check_object(bucket, _folder_of_pattern(key) if pattern else key, self._named)
        self._objects = _list_objects(bucket, key, self._named)
        for listed in self._objects:
            allowed.check_object(bucket, listed.key, self._named)
        self._total = total = len(self._objects)
        if processed is not None and [listed.key for listed in self._objects] != [key]:
            self._objects = tuple(self._objects[index] for index in new_file_indexes(self._contents, processed))
        self.size_bytes = sum(listed.size_bytes for listed in self._objects)
        self.description = f"{total} objects of {self._named}" if total > 1 else self._named
        if len(self._objects) < total:
            self.description = f"{len(self._objects)} new of {total} objects of {self._named}"
        self._folder: Path | None = None
        self._copies: dict[Path, _ListedObject] = {}
        self._files: FileSource | None = None

    @property
    def undeclared_columns(self) -> tuple[str, ...]:
        """The columns that were not declared."""
        return self._files.undeclared_columns if self._files else ()

    def content_digest(self) -> str:
        """Return a digest over the declaration and key, size and ETag of each object; nothing is downloaded."""
        declared = f"{declaration_text(self.kinds)}{self._format.declaration}"
        lines = [declared, *(f"{o.key}\t{o.size_bytes}\t{o.etag}" for o in self._objects)]
        return text_digest("\n".join([self._bucket, *lines]))

    def has_no_new_rows(self) -> bool:
        """Return whether all objects were processed before."""
        return not self._objects

    def snapshot_notes(self) -> Mapping[str, str]:
        """Return the processed objects."""
        return processed_to_notes(self._contents)

    @property
    def _contents(self) -> list[ProcessedFile]:
        return [
            ProcessedFile(
                f"s3://{self._bucket}/{o.key}",
                o.size_bytes,
                f"etag {o.etag}{constants_text(self._constants(PurePosixPath(o.key)))}",
            )
            for o in self._objects
        ]

    def _constants(self, key: PurePosixPath) -> dict[str, str | None]:
        return partition_values(key, self._named.removeprefix(f"s3://{self._bucket}/"), self._format.partitions)

    def batches(self) -> Iterator[RowBatch]:
        """Download the objects and read them: see `Source.batches`."""
        if not self._objects:
            return
        with self._s3_urls_in_errors():
            yield from self._fetched().batches()

    def direct_scan(self) -> tuple[tuple[Path, ...], Mapping[str, str]] | None:
        """Download the objects; return them if they can be scanned directly: see `Source.direct_scan`."""
        if not self._objects:
            return None
        with self._s3_urls_in_errors():
            return self._fetched().direct_scan()

    def close(self) -> None:
        """Delete the downloaded copies."""
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _fetched(self) -> FileSource:
        if self._files is None:
            self._folder = Path(tempfile.mkdtemp(prefix="s3-", dir=self._scratch))
            client = s3_client()
            for index, listed in enumerate(self._objects):
                self._copies[self._folder / _copy_name(index, listed.key)] = listed
            for copy, listed in self._copies.items():
                _fetch(client, self._bucket, listed, copy)
            format_ = replace(self._format, partitions=())  # which are in the keys, not in the folders of the copies
            files = tuple(map(self._described, list_files(str(self._folder), format_)))
            self._files = FileSource(files, self.kinds, self._named)
            self.position_labels = self._files.position_labels
        return self._files

    def _described(self, file: SourceFile) -> SourceFile:
        """Return a local copy with what the key of its object says."""
        key, unit = PurePosixPath(self._copies[file.path].key), POSITION_UNITS[file.suffix]
        label = f"{self._copies[file.path].key} {unit}" if self._total > 1 else unit
        return replace(file, key=key, constants=self._constants(key), position_label=label)

    @contextmanager
    def _s3_urls_in_errors(self) -> Iterator[None]:
        """Replace the paths of local copies by s3:// URLs in error messages."""
        try:
            yield
        except PortError as error:
            message = str(error)
            for copy, listed in self._copies.items():
                message = message.replace(str(copy), f"s3://{self._bucket}/{listed.key}")
            raise type(error)(message.replace(str(self._folder), self._named)) from error


def parse_s3_url(url: str) -> tuple[str, str]:
    """Return bucket and key of an `s3://` URL. Raises Rejected, without the text if it may hold a password."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not _BUCKET.fullmatch(bucket) or not url.isprintable() or ".." in PurePosixPath(key).parts:
        raise Rejected(
            f"{masked(url)!r} names no objects. Write s3://bucket/key, s3://bucket/prefix/ or s3://bucket/*.csv."
        )
    return bucket, key


class S3Folder:
    """The objects below a prefix, copied one by one to this machine; `close()` deletes the copies."""

    def __init__(self, url: str, scratch: Path | None, allowed: SourceSettings) -> None:
        self._bucket, key = parse_s3_url(url)
        allowed.check_object(self._bucket, key, url)
        self._prefix = f"{key.strip('/')}/" if key.strip("/") else ""
        self._named = f"s3://{self._bucket}/{self._prefix}"
        self.path = Path(tempfile.mkdtemp(prefix="s3-", dir=scratch))
        self._objects: dict[str, _ListedObject] = {}

    def names(self, below: str) -> list[str]:
        """Return the names of the objects below a part of the prefix, such as "_delta_log/", relative to the prefix.

        Raises:
            NotFound: there is none.
        """
        found = _list_all(self._bucket, f"{self._prefix}{below}", self._named)
        self._objects |= {listed.key.removeprefix(self._prefix): listed for listed in found}
        return [listed.key.removeprefix(self._prefix) for listed in found]

    def fetch(self, name: str) -> Path:
        """Return the local copy of an object, which is made once."""
        if ".." in PurePosixPath(name).parts or name.startswith("/") or not name.isprintable():
            raise Rejected(
                f"{self._named}: the name {name!r} goes upwards or has control characters. Rename the object."
            )
        copy = self.path / name
        if not copy.exists():
            listed = self._objects.get(name) or self._listed(name)
            _fetch(s3_client(), self._bucket, listed, copy)
        return copy

    def close(self) -> None:
        """Delete the copies."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _listed(self, name: str) -> _ListedObject:
        with _s3_errors(f"{self._named}{name}"):
            head = s3_client().head_object(Bucket=self._bucket, Key=f"{self._prefix}{name}")
        return _ListedObject(f"{self._prefix}{name}", head["ETag"], head["ContentLength"])


def s3_client() -> Any:
    """Return boto3's client. Raises Rejected if the extra `aws` is not installed."""
    try:
        import boto3
    except ImportError as cause:
        raise Rejected(f"S3 needs the extra 'aws' ({cause}). Install it.") from cause
    return boto3.client("s3")


def _copy_name(index: int, key: str) -> str:
    """Return the name of a local copy. It is not made of the key, which may be `/any/file` or go upwards."""
    return f"{index:09}{data_suffix(Path(key))}{'.gz' if is_compressed(Path(key)) else ''}"


def _folder_of_pattern(key: str) -> str:
    """Return the part of a pattern before the first wildcard, up to its last slash."""
    fixed = key[: next((i for i, letter in enumerate(key) if letter in GLOB_CHARACTERS), len(key))]
    return fixed.rpartition("/")[0]


def _list_objects(bucket: str, key: str, named: str) -> tuple[_ListedObject, ...]:
    """Return the objects of an address, sorted by key; a glob's star does not match a slash."""
    fixed = key[: next((i for i, letter in enumerate(key) if letter in GLOB_CHARACTERS), len(key))]
    objects = _list_all(bucket, fixed, named)
    literal = [listed for listed in objects if listed.key == key]  # a key may hold the letters of a pattern
    if not literal:
        check_no_table([PurePosixPath(listed.key.removeprefix(fixed)) for listed in objects], named)
    chosen = literal or sorted((o for o in objects if _is_selected(o.key, key, fixed)), key=lambda o: o.key)
    if not chosen:
        raise NotFound(f"{named}: there is no object. Check bucket, key and region.")
    for one in chosen:
        if ".." in PurePosixPath(one.key).parts or not one.key.isprintable():
            raise Rejected(f"{named}: the key {one.key!a} goes upwards or has control characters. Rename the object.")
        if data_suffix(Path(one.key)) not in POSITION_UNITS:
            raise Rejected(
                f"s3://{bucket}/{one.key}: objects with this suffix cannot be read. Use {', '.join(POSITION_UNITS)}; "
                "if the prefix has other objects, select the right ones by a pattern, such as s3://bucket/prefix/*.parquet."
            )
    return tuple(chosen)


def _list_all(bucket: str, prefix: str, named: str) -> list[_ListedObject]:
    with _s3_errors(named):
        pages = s3_client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [
            _ListedObject(entry["Key"], entry["ETag"], entry["Size"])
            for page in pages
            for entry in page.get("Contents", ())
        ]


def _is_selected(name: str, key: str, fixed: str) -> bool:
    parts = PurePosixPath(name).parts
    if name.endswith("/"):
        return False
    if fixed != key:
        pattern = PurePosixPath(key).parts
        return len(pattern) == len(parts) and all(map(fnmatchcase, parts, pattern))
    if name == key:
        return True
    folder = key if not key or key.endswith("/") else f"{key}/"
    return name.startswith(folder) and not any(part[0] in "._" for part in PurePosixPath(name[len(folder) :]).parts)


def _fetch(client: Any, bucket: str, listed: _ListedObject, to: Path) -> None:
    """Download an object if it is still the listed version."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with _s3_errors(f"s3://{bucket}/{listed.key}"):
        body = client.get_object(Bucket=bucket, Key=listed.key, IfMatch=listed.etag)["Body"]
        with to.open("wb") as copy:
            shutil.copyfileobj(body, copy, _CHUNK)
    if (size := to.stat().st_size) != listed.size_bytes:
        raise Unavailable(f"s3://{bucket}/{listed.key}: {size} of {listed.size_bytes} bytes were received. Try again.")


@contextmanager
def _s3_errors(named: str) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ClientError as cause:
        code = error_code(cause)
        if code in _NOT_FOUND_CODES:
            raise NotFound(f"{named}: it does not exist ({code}). Check bucket, key and region.") from cause
        if code in _PERMISSION_CODES:
            raise Rejected(
                f"{named}: access denied ({code}). Grant this role the permission to list and get."
            ) from cause
        if code in ("PreconditionFailed", "412"):
            raise Unavailable(
                f"{named}: the object changed while it was read. Nothing was ingested; try again."
            ) from cause
        raise Unavailable(f"{named}: S3 reports {code}: {cause}. Try again.") from cause
    except (NoCredentialsError, NoRegionError) as cause:
        raise Rejected(f"{named}: {cause}. Give the worker a role, or credentials and a region.") from cause
    except (BotoCoreError, HTTPError, OSError) as cause:
        raise Unavailable(f"{named}: S3 does not respond: {cause}. Try again.") from cause
