"""What transform jobs leave in S3: model, requests, what is carried along, and the answers; whole or never used.

`<prefix>/<job>/staged.json` says which folder `<prefix>/<job>/<token>/` holds the job's rows, once they are whole:

    model/      the artifact, and its signature: what SageMaker copies into the container
    in/         a request an object, `part-00000.json`
    carried/    what is joined to its answer, `part-00000.parquet`; SageMaker never reads it
    out/<n>/    the answers of the n-th attempt, `part-00000.json.out`
"""

import itertools
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from blocks.batch_inference.base import BatchInferenceJob, RequestPart
from blocks.batch_inference.sagemaker_requests import MAX_PAYLOAD_MB
from blocks.common.aws.clients import error_code
from blocks.common.aws.s3_folders import S3Folders
from blocks.common.errors import Conflict, Corrupt, Rejected
from runtime.digests import folder_digest

_UPLOAD_THREADS = 8


@dataclass(frozen=True)
class StagedRequests:
    """The rows of a job as they lie in S3: the folder's key, and how many parts it has."""

    folder: str
    parts: int
    version: str
    digest: str

    @property
    def requests_prefix(self) -> str:
        """The prefix of the requests."""
        return f"{self.folder}/in/"

    @property
    def token(self) -> str:
        """What tells this staging from others of the same job."""
        return self.folder.rpartition("/")[2]

    def responses_prefix(self, attempt: int) -> str:
        """The prefix of an attempt's answers."""
        return f"{self.folder}/out/{attempt}"


class BatchInferenceStore:
    """Jobs below a prefix. Errors are botocore's, but for those of the jobs themselves."""

    def __init__(self, folders: S3Folders, client: Any, bucket: str, prefix: str) -> None:
        self._folders, self._client, self._bucket, self._prefix = folders, client, bucket, prefix

    def staged(self, name: str) -> StagedRequests | None:
        """Return the rows that are kept for a job, or None."""
        found = self._folders.get_json(self._record(name))
        return None if found is None else StagedRequests(**found)

    def stage(self, job: BatchInferenceJob, parts: Iterable[RequestPart]) -> StagedRequests:
        """Copy model and rows to S3, unless rows are kept for that name, and return where they lie.

        Of several that stage at once one is kept, for all of them.

        Raises:
            Corrupt: the artifact is not of the job's digest.
            Conflict: rows are kept under that name for another version.
            Rejected: there is no row, or one part is larger than SageMaker takes.
        """
        found = self.staged(job.name)
        if found is None:
            found = self._claim(job, self._upload(job, parts))
        if (found.version, found.digest) != (job.version, job.digest):
            raise Conflict(f"job {job.name} exists for version {found.version} {found.digest}; give it another name")
        return found

    def responses(self, staged: StagedRequests, attempt: int) -> Iterator[tuple[pa.Table, bytes]]:
        """Yield what each part carried and its answer, in order. Raises Corrupt when one is not there."""
        for number in range(staged.parts):
            answer = self._folders.get_bytes(f"{staged.responses_prefix(attempt)}/{_part_name(number)}.json.out")
            carried = self._folders.get_bytes(f"{staged.folder}/carried/{_part_name(number)}.parquet")
            if answer is None or carried is None:
                where = self._folders.url(staged.folder)
                raise Corrupt(
                    f"{where} lacks {_part_name(number)} of {staged.parts}; remove the folder, and score again"
                )
            yield pq.read_table(pa.BufferReader(carried)), answer

    def has_all_responses(self, staged: StagedRequests, attempt: int) -> bool:
        """Whether the answers of an attempt are all there."""
        there = set(self._folders.list_keys(f"{staged.responses_prefix(attempt)}/"))
        return all(f"{_part_name(number)}.json.out" in there for number in range(staged.parts))

    def url(self, key: str) -> str:
        """Return the s3:// address of a key."""
        return self._folders.url(key)

    def _upload(self, job: BatchInferenceJob, parts: Iterable[RequestPart]) -> StagedRequests:
        folder = f"{self._prefix}/{job.name}/{uuid.uuid4().hex[:12]}"
        if (found := folder_digest(job.model_folder)) != job.digest:
            raise Corrupt(f"artifact {job.model_folder} has the digest {found}, expected {job.digest}; fetch it again")
        files = {f"{folder}/model/model/{path.relative_to(job.model_folder).as_posix()}": path
                 for path in sorted(job.model_folder.rglob("*")) if path.is_file()}  # fmt: skip
        signature = job.model_folder.with_name(f"{job.model_folder.name}.sig")
        if signature.exists():
            files[f"{folder}/model/model.sig"] = signature
        count, numbered = 0, enumerate(parts)
        with ThreadPoolExecutor(_UPLOAD_THREADS) as pool:
            list(pool.map(lambda each: self._put(each[0], each[1].read_bytes()), files.items()))
            while window := list(itertools.islice(numbered, _UPLOAD_THREADS)):  # no more of them in memory
                count += sum(pool.map(lambda each: self._put_part(folder, *each), window))
        if not count:
            raise Rejected(f"job {job.name} has no rows")
        return StagedRequests(folder, count, job.version, job.digest)

    def _claim(self, job: BatchInferenceJob, copied: StagedRequests) -> StagedRequests:
        """Say which rows are the job's, unless somebody else has said so meanwhile; return those that are."""
        from botocore.exceptions import ClientError

        record = {"folder": copied.folder, "parts": copied.parts, "version": copied.version, "digest": copied.digest}
        try:
            self._folders.create_json(self._record(job.name), record)
        except ClientError as error:
            if error_code(error) not in ("PreconditionFailed", "ConditionalRequestConflict"):
                raise
            return self.staged(job.name) or copied
        return copied

    def _put_part(self, folder: str, number: int, part: RequestPart) -> int:
        if len(part.request) > MAX_PAYLOAD_MB * 2**20:
            size = len(part.request)
            raise Rejected(f"part {number} has {size} bytes; SageMaker takes {MAX_PAYLOAD_MB} MB a request")
        sink = pa.BufferOutputStream()
        pq.write_table(part.passthrough, sink)
        self._put(f"{folder}/carried/{_part_name(number)}.parquet", sink.getvalue().to_pybytes())
        self._put(f"{folder}/in/{_part_name(number)}.json", part.request)
        return 1

    def _put(self, key: str, body: bytes) -> None:
        self._client.put_object(Bucket=self._bucket, Key=key, Body=body)

    def _record(self, name: str) -> str:
        return f"{self._prefix}/{name}/staged.json"


def _part_name(number: int) -> str:
    return f"part-{number:05d}"
