"""A lake in S3, or a compatible service with conditional puts; any number of processes may use it at the same time.

Log entries are put with `If-None-Match: *`: 412 means that another writer was first, 409 that two puts collided and
this one must be repeated. If the response to a put was lost, the existing object is compared with the entry. Files have
the SHA-256 that S3 itself checked when they were put.
"""

import base64
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pydantic import Field

from blocks.common.aws.clients import error_code
from blocks.common.errors import Corrupt, NotFound, PortError, Rejected, Unavailable
from blocks.lake.object_store import ObjectInfo, ObjectStore
from blocks.lake.object_store_lake import ObjectStoreLake
from runtime.digests import bytes_digest

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

_MISSING_CODES = {"404", "NoSuchKey", "NotFound"}
_PRECONDITION_CODES = {"412", "PreconditionFailed"}
_RETRY_CODES = {"409", "ConditionalRequestConflict", "OperationAborted"}
_REJECTED_CODES = {"AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "BadDigest"}
_MAX_ATTEMPTS = 20
_PAUSE_SECONDS = 0.02


class S3Store:
    """Objects of a bucket below a prefix."""

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""

    def get(self, key: str) -> bytes | None:
        """Return the bytes, or None if the object does not exist."""
        try:
            content: bytes = self._client.get_object(**self._at(key))["Body"].read()
        except self._client.exceptions.ClientError as error:
            if error_code(error) in _MISSING_CODES:
                return None
            raise
        return content

    def put(self, key: str, data: bytes | pa.Buffer, sha256: str) -> None:
        """Put an object; S3 rejects data with another SHA-256."""
        body = data if isinstance(data, bytes) else memoryview(data).tobytes()
        checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
        self._client.put_object(**self._at(key), Body=body, ChecksumSHA256=checksum)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Create an object; return False if another one exists."""
        for attempt in range(_MAX_ATTEMPTS):
            try:
                self._client.put_object(**self._at(key), Body=data, IfNoneMatch="*")
                return True
            except self._client.exceptions.ClientError as error:
                if error_code(error) in _PRECONDITION_CODES:
                    return self.get(key) == data  # equal if the response to an earlier attempt was lost
                if error_code(error) not in _RETRY_CODES:
                    raise
                sleep(_PAUSE_SECONDS * (attempt + 1))
        raise Unavailable(f"{self.url(key)}: S3 reported {_MAX_ATTEMPTS} times that puts conflict. Try again.")

    def put_hint(self, key: str, data: bytes) -> None:
        """Put an object, replacing an existing one; failures are ignored."""
        from botocore.exceptions import BotoCoreError, ClientError

        with suppress(BotoCoreError, ClientError):
            self._client.put_object(**self._at(key), Body=data)

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects below a prefix."""
        pages = self._client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
            for found in page.get("Contents", ()):
                yield ObjectInfo(found["Key"].removeprefix(self._prefix), found["Size"], found["LastModified"])

    def top_level_names(self) -> list[str]:
        """Return the first parts of all keys."""
        pages = self._client.get_paginator("list_objects_v2")
        found = pages.paginate(Bucket=self._bucket, Prefix=self._prefix, Delimiter="/")
        prefixes = [entry["Prefix"] for page in found for entry in page.get("CommonPrefixes", ())]
        return [prefix.removeprefix(self._prefix).rstrip("/") for prefix in prefixes]

    def delete(self, key: str) -> None:
        """Delete an object; in a bucket with versions it becomes an old version."""
        self._client.delete_object(**self._at(key))

    def purge(self, key: str) -> None:
        """Delete each version of an object, which needs s3:ListBucketVersions and s3:DeleteObjectVersion."""
        place = self._at(key)
        pages = self._client.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=place["Key"])
        found = [each for page in pages for kind in ("Versions", "DeleteMarkers") for each in page.get(kind, ())]
        for each in found:
            if each["Key"] == place["Key"]:
                self._client.delete_object(**place, VersionId=each["VersionId"])

    def open(self, key: str, sha256: str) -> pa.NativeFile:
        """Fetch an object and verify its SHA-256, which costs little here."""
        data = self.get(key)
        if data is None or bytes_digest(data) != sha256:
            problem = "is missing" if data is None else "was changed (checksum mismatch)"
            raise Corrupt(f"{self.url(key)}: the file {problem}. Restore it from a copy.")
        return pa.BufferReader(data)

    def url(self, key: str) -> str:
        """Return the object's s3:// URL."""
        return f"s3://{self._bucket}/{self._prefix}{key}"

    def fingerprint(self, key: str) -> str | None:
        """Return the entity tag, size and time of the object, or None if it does not exist."""
        head = self._head(key)
        return f"{head['ETag']}-{head['ContentLength']}-{head['LastModified'].timestamp()}" if head else None

    def sha256(self, key: str) -> str:
        """Return the SHA-256 that S3 stores with the object; if there is none, that of its bytes."""
        if stored := (self._head(key) or {}).get("ChecksumSHA256"):
            return base64.b64decode(stored).hex()
        data = self.get(key)
        if data is None:
            raise FileNotFoundError(self.url(key))
        return bytes_digest(data)

    def _head(self, key: str) -> dict[str, Any] | None:
        try:
            head: dict[str, Any] = self._client.head_object(**self._at(key), ChecksumMode="ENABLED")
        except self._client.exceptions.ClientError as error:
            if error_code(error) in _MISSING_CODES:
                return None
            raise
        return head

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}


class S3Lake(ObjectStoreLake):
    """Append-only data sets in an S3 bucket. Credentials come from boto3's default chain."""

    _block_type_name = "Ratchet lake (S3)"
    _block_type_slug = "ratchet-lake-s3"

    bucket: str = Field(description="Name of an existing bucket.")
    prefix: str = Field(default="lake", description="Key prefix of the lake in the bucket.")
    region: str | None = Field(default=None, description="Region of the bucket; None: boto3's default.")
    endpoint_url: str | None = Field(
        default=None, description="Endpoint URL of another service than AWS, such as MinIO."
    )
    spill_folder: Path | None = Field(
        default=None, description="Local folder with space for the largest append; None: the temporary folder."
    )

    def open_store(self) -> ObjectStore:
        """Return the bucket as a store."""
        import boto3
        from botocore.config import Config

        retries: Any = {"mode": "standard", "max_attempts": 5}
        config = Config(retries=retries, max_pool_connections=16)
        client = boto3.client("s3", region_name=self.region, endpoint_url=self.endpoint_url or None, config=config)
        return S3Store(client, self.bucket, self.prefix)

    def spill(self) -> Path:
        """Return the local folder in which large appends are sorted."""
        return self.spill_folder or Path(tempfile.gettempdir()) / "ratchet-lake"

    @contextmanager
    def port_errors(self, dataset: str, action: str) -> Iterator[None]:
        """Translate errors of S3 and of the local disk into port errors."""
        from botocore.exceptions import BotoCoreError, ClientError

        problem = f"{dataset}: the lake in s3://{self.bucket}/{self.prefix} could not be {action}"
        try:
            yield
        except PortError:
            raise
        except ClientError as cause:
            raise _port_error(problem, cause) from cause
        except (BotoCoreError, OSError) as cause:
            raise Unavailable(f"{problem}: {cause}. Check the network, the credentials and the disk.") from cause


def _port_error(problem: str, cause: "ClientError") -> PortError:
    code = error_code(cause)
    if code == "NoSuchBucket":
        return NotFound(f"{problem}: {cause}. Create the bucket, or use another one.")
    if code in _REJECTED_CODES:
        return Rejected(f"{problem}: {cause}. Grant these credentials the permission.")
    return Unavailable(f"{problem}: {cause}. Try again.")
