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
from blocks.sources.dialects import PLAIN_FORMAT, SourceFormat, data_suffix
from blocks.sources.file_listing import (
    GLOB_CHARACTERS,
    POSITION_UNITS,
    ProcessedFile,
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
            client = _client()
            for listed in self._objects:
                _fetch(client, self._bucket, listed, self._folder / self._bucket / listed.key)
            top, first = self._folder / self._bucket, self._objects[0]
            format_ = replace(self._format, partitions=())  # which are in the keys, not in the folders of the copies
            files = tuple(
                replace(file, constants=self._constants(PurePosixPath(file.path.relative_to(top).as_posix())))
                for file in list_files(str(top / first.key if len(self._objects) == 1 else top), format_)
            )
            if len(self._objects) == 1 < self._total:
                files = (replace(files[0], position_label=f"{first.key} {files[0].position_label}"),)
            self._files = FileSource(files, self.kinds, self._named)
            self.position_labels = self._files.position_labels
        return self._files

    @contextmanager
    def _s3_urls_in_errors(self) -> Iterator[None]:
        """Replace the paths of local copies by s3:// URLs in error messages."""
        try:
            yield
        except PortError as error:
            raise type(error)(str(error).replace(f"{self._folder}/", "s3://")) from error


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
            _fetch(_client(), self._bucket, listed, copy)
        return copy

    def close(self) -> None:
        """Delete the copies."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _listed(self, name: str) -> _ListedObject:
        with _s3_errors(f"{self._named}{name}"):
            head = _client().head_object(Bucket=self._bucket, Key=f"{self._prefix}{name}")
        return _ListedObject(f"{self._prefix}{name}", head["ETag"], head["ContentLength"])


def pyiceberg_properties() -> dict[str, str]:
    """Return endpoint, region and credentials of the AWS SDK's configuration for pyiceberg's own S3 client."""
    import boto3

    client, credentials = _client(), boto3.Session().get_credentials()
    found = {"s3.endpoint": client.meta.endpoint_url, "s3.region": client.meta.region_name}
    if credentials:
        frozen = credentials.get_frozen_credentials()
        found |= {"s3.access-key-id": frozen.access_key, "s3.secret-access-key": frozen.secret_key}
        found["s3.session-token"] = frozen.token
    return {name: value for name, value in found.items() if value}


def _client() -> Any:
    try:
        import boto3
    except ImportError as cause:
        raise Rejected(f"S3 needs the extra 'aws' ({cause}). Install it.") from cause
    return boto3.client("s3")


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
        if data_suffix(Path(one.key)) not in POSITION_UNITS:
            raise Rejected(
                f"s3://{bucket}/{one.key}: objects with this suffix cannot be read. Use {', '.join(POSITION_UNITS)}; "
                "if the prefix has other objects, select the right ones by a pattern, such as s3://bucket/prefix/*.parquet."
            )
    return tuple(chosen)


def _list_all(bucket: str, prefix: str, named: str) -> list[_ListedObject]:
    with _s3_errors(named):
        pages = _client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [
            _ListedObject(entry["Key"], entry["ETag"], entry["Size"])
            for page in pages
            for entry in page.get("Contents", ())
        ]


def _is_selected(name: str, key: str, fixed: str) -> bool:
    parts = PurePosixPath(name).parts
    if name.endswith("/") or ".." in parts:
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
        problem = f"{size} of {listed.size_bytes} bytes were received"
        raise Unavailable(f"s3://{bucket}/{listed.key}: {problem}. Try again.")


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
