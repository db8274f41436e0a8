"""Folders in S3. A folder is uploaded completely, then marked as complete, and never changed afterwards."""

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from blocks.common.aws.clients import response_or_none
from blocks.common.errors import Rejected

COMPLETE_MARKER = ".complete"
"""Suffix of the object that marks a folder as completely uploaded."""
UPLOAD_THREADS = 8
DELETE_BATCH_SIZE = 1000
"""Maximum number of objects that S3 deletes in one call."""


@dataclass(frozen=True)
class S3Object:
    """An object in S3: its key, its size, and when it was last written."""

    key: str
    size_bytes: int
    modified: datetime


class S3Folders:
    """Prefixes of one bucket. Raises botocore's errors; callers translate them into port errors."""

    def __init__(self, client: Any, bucket: str) -> None:
        self._client, self._bucket = client, bucket

    def url(self, key: str) -> str:
        """Return the s3:// URL of a key."""
        return f"s3://{self._bucket}/{key}"

    def get_bytes(self, key: str) -> bytes | None:
        """Return an object's bytes, or None if it does not exist."""
        found = response_or_none(self._client.get_object, Bucket=self._bucket, Key=key)
        return None if found is None else bytes(found["Body"].read())

    def put(self, key: str, body: bytes | IO[bytes], **conditions: str) -> None:
        """Write an object, replacing an existing one; `conditions` are further arguments of boto3's `put_object`."""
        self._client.put_object(Bucket=self._bucket, Key=key, Body=body, **conditions)

    def put_json(self, key: str, content: object, **conditions: str) -> None:
        """Write JSON; see `put`."""
        self.put(key, json.dumps(content, sort_keys=True).encode(), **conditions)

    def get_json(self, key: str) -> dict[str, Any] | None:
        """Return a JSON object, or None if it does not exist."""
        content = self.get_bytes(key)
        return None if content is None else dict(json.loads(content))

    def upload_folder(self, folder: Path, prefix: str) -> str:
        """Upload the files of a folder below `prefix` unless they are there; return the s3:// URL, ending in a slash.

        The prefix must name the content (a digest): a folder marked as complete is not uploaded again. The marker is
        rewritten on each call, so that garbage collection sees the folder as recently used.
        """
        mark = f"{prefix}{COMPLETE_MARKER}"
        paths = [path for path in folder.rglob("*") if path.is_file()]
        if self.get_bytes(mark) is None:
            with ThreadPoolExecutor(UPLOAD_THREADS) as pool:
                list(pool.map(lambda path: self._upload_file(path, folder, prefix), paths))
        self.put_json(mark, {"files": len(paths)})
        return self.url(f"{prefix}/")

    def objects(self, prefix: str) -> Iterator[S3Object]:
        """Yield the objects below a prefix, ordered by key."""
        for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix):
            for found in page.get("Contents", ()):
                yield S3Object(str(found["Key"]), int(found["Size"]), found["LastModified"])

    def list_keys(self, prefix: str) -> list[str]:
        """Return the keys below a prefix, without the prefix."""
        return [stored.key.removeprefix(prefix) for stored in self.objects(prefix)]

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; a missing one is no error. Raises Rejected if S3 did not delete one."""
        waiting = list(keys)
        for start in range(0, len(waiting), DELETE_BATCH_SIZE):
            named = [{"Key": each} for each in waiting[start : start + DELETE_BATCH_SIZE]]
            response = self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": named, "Quiet": True})
            if failed := response.get("Errors"):
                raise Rejected(f"S3 did not delete {len(failed)} objects, such as {failed[0]}")

    def download(self, url: str, path: Path) -> None:
        """Download the object at an s3:// URL to a file."""
        bucket, _, key = url.removeprefix("s3://").partition("/")
        self._client.download_file(bucket, key, str(path))

    def _upload_file(self, path: Path, folder: Path, prefix: str) -> None:
        self._client.upload_file(str(path), self._bucket, f"{prefix}/{path.relative_to(folder).as_posix()}")
