"""Folders in S3. A folder is uploaded completely, then marked as complete, and never changed afterwards."""

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from blocks.common.aws.clients import is_missing

COMPLETE_MARKER = ".complete"
"""Suffix of the object that marks a folder as completely uploaded."""
_UPLOAD_THREADS = 8


class S3Folders:
    """Prefixes of one bucket. Raises botocore's errors; callers translate them into port errors."""

    def __init__(self, client: Any, bucket: str) -> None:
        self._client, self._bucket = client, bucket

    def url(self, key: str) -> str:
        """Return the s3:// URL of a key."""
        return f"s3://{self._bucket}/{key}"

    def get_bytes(self, key: str) -> bytes | None:
        """Return an object's bytes, or None if it does not exist."""
        from botocore.exceptions import ClientError

        try:
            content: bytes = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        except ClientError as error:
            if is_missing(error):
                return None
            raise
        return content

    def put_json(self, key: str, content: object) -> None:
        """Write JSON, replacing an existing object."""
        self._client.put_object(Bucket=self._bucket, Key=key, Body=_json(content))

    def create_json(self, key: str, content: object) -> None:
        """Write JSON to a new object. Raises botocore's PreconditionFailed if the object exists."""
        self._client.put_object(Bucket=self._bucket, Key=key, Body=_json(content), IfNoneMatch="*")

    def get_json(self, key: str) -> dict[str, Any] | None:
        """Return a JSON object, or None if it does not exist."""
        content = self.get_bytes(key)
        return None if content is None else dict(json.loads(content))

    def upload_folder(self, folder: Path, files: Iterable[Path], prefix: str) -> str:
        """Upload files of a folder below `prefix` unless they are there; return the s3:// URL with a trailing slash.

        The prefix must name the content (a digest): a folder marked as complete is not uploaded again. The marker is
        rewritten on each call, so that garbage collection sees the folder as recently used.
        """
        mark = f"{prefix.rstrip('/')}{COMPLETE_MARKER}"
        keys = [(path, f"{prefix.rstrip('/')}/{path.relative_to(folder).as_posix()}") for path in files]
        if self.get_bytes(mark) is None:
            with ThreadPoolExecutor(_UPLOAD_THREADS) as pool:
                list(pool.map(lambda each: self._upload_file(*each), keys))
        self.put_json(mark, {"files": len(keys)})
        return self.url(prefix.rstrip("/") + "/")

    def list_keys(self, prefix: str) -> list[str]:
        """Return the keys below a prefix, without the prefix."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        return [str(found["Key"]).removeprefix(prefix) for page in pages for found in page.get("Contents", ())]

    def download(self, url: str, path: Path) -> None:
        """Download the object at an s3:// URL to a file."""
        bucket, _, key = url.removeprefix("s3://").partition("/")
        self._client.download_file(bucket, key, str(path))

    def _upload_file(self, path: Path, key: str) -> None:
        self._client.upload_file(str(path), self._bucket, key)


def _json(content: object) -> bytes:
    return json.dumps(content, sort_keys=True).encode()
