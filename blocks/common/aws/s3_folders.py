"""Folders in S3: copied whole, marked when they are, never changed afterwards."""

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from blocks.common.aws.clients import is_missing

COMPLETE_MARKER = ".whole"
"""How the object ends that says that a folder is whole."""
_UPLOAD_THREADS = 8


class S3Folders:
    """Prefixes of one bucket. Errors are botocore's: callers turn them into the port's."""

    def __init__(self, client: Any, bucket: str) -> None:
        self._client, self._bucket = client, bucket

    def url(self, key: str) -> str:
        """Return the s3:// address of a key."""
        return f"s3://{self._bucket}/{key}"

    def get_bytes(self, key: str) -> bytes | None:
        """Return an object's bytes, or None when there is none."""
        from botocore.exceptions import ClientError

        try:
            found: bytes = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        except ClientError as error:
            if is_missing(error):
                return None
            raise
        return found

    def put_json(self, key: str, content: object) -> None:
        """Write JSON over what is there."""
        self._client.put_object(Bucket=self._bucket, Key=key, Body=_json(content))

    def create_json(self, key: str, content: object) -> None:
        """Write JSON where nothing is; botocore's PreconditionFailed when something is there."""
        self._client.put_object(Bucket=self._bucket, Key=key, Body=_json(content), IfNoneMatch="*")

    def get_json(self, key: str) -> dict[str, Any] | None:
        """Return a JSON object, or None when there is none."""
        found = self.get_bytes(key)
        return None if found is None else dict(json.loads(found))

    def upload_folder(self, folder: Path, members: Iterable[Path], prefix: str) -> str:
        """Copy files of a folder below `prefix`, unless they are there; return the address, with a slash at its end.

        The prefix must name the content (a digest): what is marked as whole is not looked at again. The mark is
        written anew each time: what was used lately is not swept.
        """
        mark = f"{prefix.rstrip('/')}{COMPLETE_MARKER}"
        files = [(path, f"{prefix.rstrip('/')}/{path.relative_to(folder).as_posix()}") for path in members]
        if self.get_bytes(mark) is None:
            with ThreadPoolExecutor(_UPLOAD_THREADS) as pool:
                list(pool.map(lambda each: self._upload_file(*each), files))
        self.put_json(mark, {"files": len(files)})
        return self.url(prefix.rstrip("/") + "/")

    def list_keys(self, prefix: str) -> list[str]:
        """Return the keys below a prefix, without it."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        return [str(found["Key"]).removeprefix(prefix) for page in pages for found in page.get("Contents", ())]

    def download(self, url: str, path: Path) -> None:
        """Copy the object at an s3:// address to a file."""
        bucket, _, key = url.removeprefix("s3://").partition("/")
        self._client.download_file(bucket, key, str(path))

    def _upload_file(self, path: Path, key: str) -> None:
        self._client.upload_file(str(path), self._bucket, key)


def _json(content: object) -> bytes:
    return json.dumps(content, sort_keys=True).encode()
