"""Files of transform jobs in S3: model, requests, passthrough columns and responses.

`<prefix>/<job>/staged.json` names the folder `<prefix>/<job>/<token>/` with the job's rows, once they are complete:

    model/          the artifact and its signature; SageMaker copies them into the container
    in/             one object per request, `part-00000.json`
    passthrough/    columns to join to the response, `part-00000.parquet`; SageMaker never reads them
    out/<n>/        the responses of the n-th attempt, `part-00000.json.out`
"""

import itertools
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from blocks.batch_inference.base import BatchInferenceJob, RequestPart
from blocks.common.aws.clients import ignored_errors
from blocks.common.aws.s3_folders import UPLOAD_THREADS, S3Folders
from blocks.common.errors import Conflict, Corrupt, Rejected
from runtime.digests import folder_digest
from runtime.signatures import signature_file

MAX_PAYLOAD_MB = 6
"""SageMaker's default for the size of one request to the container."""


@dataclass(frozen=True)
class StagedRequests:
    """The uploaded rows of a job: the key of their folder in S3, and the number of parts."""

    folder: str
    parts: int
    version: str
    digest: str

    @property
    def requests_prefix(self) -> str:
        """The prefix of the requests."""
        return f"{self.folder}/in/"

    def responses_prefix(self, attempt: int) -> str:
        """The prefix of an attempt's responses."""
        return f"{self.folder}/out/{attempt}"


class BatchInferenceStore:
    """Jobs below a prefix. Raises botocore's errors, and port errors about the jobs themselves."""

    def __init__(self, folders: S3Folders, prefix: str) -> None:
        self._folders, self._prefix = folders, prefix

    def staged(self, name: str) -> StagedRequests | None:
        """Return the stored rows of a job, or None."""
        record = self._folders.get_json(self._record(name))
        return None if record is None else StagedRequests(**record)

    def stage(self, job: BatchInferenceJob, parts: Iterable[RequestPart]) -> StagedRequests:
        """Upload model and rows unless rows are stored for that name, and return the stored rows.

        If several processes upload at the same time, all of them use the rows of the first.

        Raises:
            Corrupt: the artifact does not have the job's digest.
            Conflict: rows are stored under that name for another version.
            Rejected: there are no rows, or a part exceeds SageMaker's size limit.
        """
        staged = self.staged(job.name)
        if staged is None:
            staged = self._claim(job, self._upload(job, parts))
        if (staged.version, staged.digest) != (job.version, job.digest):
            raise Conflict(f"job {job.name} exists for version {staged.version} {staged.digest}; give it another name")
        return staged

    def responses(self, staged: StagedRequests, attempt: int) -> Iterator[tuple[pa.Table, bytes]]:
        """Yield the passthrough columns and the response of each part. Raises Corrupt if one is missing."""
        for number in range(staged.parts):
            response = self._folders.get_bytes(f"{staged.responses_prefix(attempt)}/{_part_name(number)}.json.out")
            passthrough = self._folders.get_bytes(f"{staged.folder}/passthrough/{_part_name(number)}.parquet")
            if response is None or passthrough is None:
                url = self._folders.url(staged.folder)
                raise Corrupt(f"{url} lacks {_part_name(number)} of {staged.parts}; delete the folder, and score again")
            yield pq.read_table(pa.BufferReader(passthrough)), response

    def has_all_responses(self, staged: StagedRequests, attempt: int) -> bool:
        """Return whether all responses of an attempt exist."""
        existing = set(self._folders.list_keys(f"{staged.responses_prefix(attempt)}/"))
        return all(f"{_part_name(number)}.json.out" in existing for number in range(staged.parts))

    def url(self, key: str) -> str:
        """Return the s3:// URL of a key."""
        return self._folders.url(key)

    def _upload(self, job: BatchInferenceJob, parts: Iterable[RequestPart]) -> StagedRequests:
        folder = f"{self._prefix}/{job.name}/{uuid.uuid4().hex[:12]}"
        if (found := folder_digest(job.model_folder)) != job.digest:
            raise Corrupt(f"artifact {job.model_folder} has the digest {found}, expected {job.digest}; fetch it again")
        files = {f"{folder}/model/model/{path.relative_to(job.model_folder).as_posix()}": path
                 for path in sorted(job.model_folder.rglob("*")) if path.is_file()}  # fmt: skip
        if (signature := signature_file(job.model_folder)).exists():
            files[f"{folder}/model/model.sig"] = signature
        count, numbered = 0, enumerate(parts)
        with ThreadPoolExecutor(UPLOAD_THREADS) as pool:
            list(pool.map(lambda each: self._folders.put(each[0], each[1].read_bytes()), files.items()))
            while window := list(itertools.islice(numbered, UPLOAD_THREADS)):  # bounds the memory
                count += sum(pool.map(lambda each: self._put_part(folder, *each), window))
        if not count:
            raise Rejected(f"job {job.name} has no rows")
        return StagedRequests(folder, count, job.version, job.digest)

    def _claim(self, job: BatchInferenceJob, copied: StagedRequests) -> StagedRequests:
        """Record the uploaded rows as the job's, unless another process did so first; return the recorded ones."""
        with ignored_errors("PreconditionFailed", "ConditionalRequestConflict"):
            self._folders.put_json(self._record(job.name), asdict(copied), IfNoneMatch="*")
        return self.staged(job.name) or copied

    def _put_part(self, folder: str, number: int, part: RequestPart) -> int:
        if len(part.request) > MAX_PAYLOAD_MB * 2**20:
            size = len(part.request)
            raise Rejected(f"part {number} has {size} bytes; SageMaker takes {MAX_PAYLOAD_MB} MB a request")
        sink = pa.BufferOutputStream()
        pq.write_table(part.passthrough, sink)
        self._folders.put(f"{folder}/passthrough/{_part_name(number)}.parquet", sink.getvalue().to_pybytes())
        self._folders.put(f"{folder}/in/{_part_name(number)}.json", part.request)
        return 1

    def _record(self, name: str) -> str:
        return f"{self._prefix}/{name}/staged.json"


def _part_name(number: int) -> str:
    return f"part-{number:05d}"
