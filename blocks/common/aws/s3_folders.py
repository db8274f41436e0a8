"""Folders in S3. A folder is uploaded completely, then marked as complete, and never changed afterwards."""

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from blocks.common.aws.clients import response_or_none

COMPLETE_MARKER = ".complete"
"""Suffix of the object that marks a folder as completely uploaded."""
UPLOAD_THREADS = 8


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

    def upload_folder(self, folder: Path, prefix: str, files: Iterable[Path] | None = None) -> str:
        """Upload files of a folder below `prefix` unless they are there; return the s3:// URL with a trailing slash.

        `files` None are all files. The prefix must name the content (a digest): a folder marked as complete is not
        uploaded again. The marker is rewritten on each call, so that garbage collection sees the folder as recently
        used.
        """
        mark = f"{prefix}{COMPLETE_MARKER}"
        paths = [path for path in folder.rglob("*") if path.is_file()] if files is None else list(files)
        if self.get_bytes(mark) is None:
            with ThreadPoolExecutor(UPLOAD_THREADS) as pool:
                list(pool.map(lambda path: self._upload_file(path, folder, prefix), paths))
        self.put_json(mark, {"files": len(paths)})
        return self.url(f"{prefix}/")

    def list_keys(self, prefix: str) -> list[str]:
        """Return the keys below a prefix, without the prefix."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        return [str(found["Key"]).removeprefix(prefix) for page in pages for found in page.get("Contents", ())]

    def download(self, url: str, path: Path) -> None:
        """Download the object at an s3:// URL to a file."""
        bucket, _, key = url.removeprefix("s3://").partition("/")
        self._client.download_file(bucket, key, str(path))

    def _upload_file(self, path: Path, folder: Path, prefix: str) -> None:
        self._client.upload_file(str(path), self._bucket, f"{prefix}/{path.relative_to(folder).as_posix()}")
