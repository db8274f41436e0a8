"""Training on this machine: the container's entry point in a separate process, and its state in a folder.

`<root>/<job>/job.json` holds the digests of the job; `<root>/<job>/<attempt>/` has the layout of `/opt/ml`, with
`log.txt`, `process.json` (the process, written at the start), `status.json` (the exit code, written by the entry
point) and `stop_reason.json` (why the trainer ended it). All state is in files, so every process sees the same state.
"""

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from blocks.common.collectable import FolderArtifacts
from blocks.common.errors import NotFound
from blocks.common.jobs import JobStatus
from blocks.records.collectable import Collectable
from blocks.records.compute import Compute
from blocks.trainers import job_checks as jobs
from blocks.trainers import job_processes as processes
from blocks.trainers.base import Trainer, TrainingJob, TrainingJobState
from runtime.files import write_text_atomically

ENTRY_POINT = Path(__file__).resolve().parents[2] / "runtime" / "train.py"
LIMIT_CHECK_SECONDS = 0.5
THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class LocalTrainer(Trainer):
    """Runs training programs on this machine, each in a clean environment with limits of time and memory.

    Unless it is isolated, a program may read what the user of this process may read: keys, tokens, other tiers, and
    the variables of this process. An environment that requires authentication refuses this unless it says `none`.
    """

    _block_type_name = "Ratchet trainer (local)"
    _block_type_slug = "ratchet-trainer-local"

    root: Path = Field(description="Folder of the jobs: links to inputs, models, logs, states.")
    python: str | None = Field(
        default=None, description="Python that runs the training; None: the Python of this process."
    )
    threads: int = Field(default=2, gt=0, description="Number of threads of numerical libraries in a job.")
    grace_seconds: float = Field(default=5.0, ge=0, description="Seconds between SIGTERM and SIGKILL.")

    isolation: Literal["", "none", "bubblewrap"] = Field(
        default="",
        description="bubblewrap: a program sees nothing but its job (Linux; apt-get install bubblewrap). none: it may "
        "read what this process's user may. Empty is none, and refused where approvals require authentication.",
    )
    network: bool = Field(
        default=False, description="Whether an isolated program reaches the network, and not only the tracking server."
    )

    def compute(self, max_seconds: int) -> Compute:
        """Return this machine, which costs nothing."""
        return Compute(max_seconds=max_seconds)

    def submit(self, job: TrainingJob) -> None:
        """Start the job, or attach to the running one; see `Trainer.submit`."""
        program = jobs.checked_program(job)
        content = jobs.content_digests(job, program)
        with self._locked(job.name):
            if self._attempt(job.name) is not None:
                jobs.check_same_content(job.name, self._read(self._job_folder(job.name) / "job.json"), content)
                if self._state_after_cleanup(job.name).status in (JobStatus.in_progress, JobStatus.completed):
                    return
            _write_json(self._job_folder(job.name) / "job.json", content)
            attempt = self._prepare(job, program)
            self._start(job, attempt)

    def state(self, name: str) -> TrainingJobState:
        """Return the state of the job; see `Trainer.state`."""
        self._current(name)  # raises NotFound before a lock file is made
        with self._locked(name):
            return self._state(name, self._current(name))

    def logs(self, name: str, offset: int = 0) -> tuple[list[str], int]:
        """Return complete log lines from the byte `offset` on; the last line is complete once the job ended."""
        ended = self.state(name).status is not JobStatus.in_progress
        log = self._current(name) / "log.txt"
        if not log.exists():  # the submitting process died before it started anything
            return [], offset
        with log.open("rb") as stream:
            stream.seek(offset)
            content = stream.read()
        if not ended:
            content = content[: content.rfind(b"\n") + 1]
        return content.decode(errors="replace").splitlines(), offset + len(content)

    def stop(self, name: str) -> None:
        """Stop the job and all its processes; see `Trainer.stop`."""
        attempt = self._current(name)
        if self.state(name).status is JobStatus.in_progress:
            self._end_with_reason(attempt, JobStatus.stopped, "stopped on request")
        processes.end_processes(attempt, grace_seconds=0)

    def collectables(self, names: Sequence[str]) -> tuple[Collectable, ...]:
        """Return every attempt of every job, whatever the model; see `ArtifactOwner.collectables`."""
        artifacts: list[Collectable] = []
        for job_folder in sorted(path for path in self.root.resolve().glob("*") if path.is_dir()):
            attempts = self._attempts(job_folder.name)
            running = bool(attempts) and self.state(job_folder.name).status is JobStatus.in_progress
            artifacts += self._folders.collectables_of(attempts[:-1])
            artifacts += self._folders.collectables_of(attempts[-1:], keep_reason="it is running" if running else "")
        return tuple(artifacts)

    def size_bytes(self, key: str) -> int:
        """Return the bytes of an attempt; see `ArtifactOwner.size_bytes`."""
        return self._folders.size_bytes(key)

    def delete_collectables(self, key: str) -> None:
        """Delete an attempt, and the job's folder with its last attempt; see `ArtifactOwner.delete_collectables`."""
        job_folder = self._folders.path_of(key).parent
        with self._locked(job_folder.name):
            self._folders.delete_collectables(key)
            if job_folder.is_dir() and not self._attempts(job_folder.name):
                shutil.rmtree(job_folder)

    @property
    def _folders(self) -> FolderArtifacts:
        return FolderArtifacts(self.root.resolve(), "attempt", depth=2)

    def _state_after_cleanup(self, name: str) -> TrainingJobState:
        """End processes that a dead submitter or a killed entry point left running, and return the state."""
        attempt = self._current(name)
        process = self._read(attempt / "process.json")
        if process and not processes.is_alive(process["owner"], process["owner_created"]):
            processes.end_processes(attempt, self.grace_seconds)
        return self._state(name, attempt)

    def _state(self, name: str, attempt: Path) -> TrainingJobState:
        process = self._read(attempt / "process.json")
        alive = bool(process) and processes.is_alive(process["pid"], process["created"])
        status, stop_reason = self._read(attempt / "status.json"), self._read(attempt / "stop_reason.json")
        seconds = status.get("seconds") or time.time() - process.get("started", time.time())
        if alive:  # checked before the files were read: a process that has ended has written them
            return TrainingJobState(name, JobStatus.in_progress, seconds)
        if stop_reason:
            end = JobStatus(stop_reason["status"])
            return TrainingJobState(name, end, stop_reason["seconds"], stop_reason["reason"])
        if not status:
            reason = "interrupted: its process ended without writing a status"
            return TrainingJobState(name, JobStatus.failed, seconds, reason)
        if status["exit_code"]:
            return TrainingJobState(name, JobStatus.failed, seconds, status["reason"])
        for left in (attempt / "model", attempt / "output" / "data"):
            if strange := processes.first_strange_entry(left):
                reason = f"the program left {strange}; write plain files to SM_MODEL_DIR and SM_OUTPUT_DATA_DIR"
                return TrainingJobState(name, JobStatus.failed, seconds, reason)
        return TrainingJobState(name, JobStatus.completed, seconds, model_folder=attempt / "model")

    def _prepare(self, job: TrainingJob, program: Mapping[str, bytes]) -> Path:
        """Create the next attempt's folder. The program is copied, so that later edits do not change it."""
        attempt = self._job_folder(job.name) / f"{len(self._attempts(job.name)) + 1:03d}"
        data, config = attempt / "input" / "data", attempt / "input" / "config"
        for folder in (data, config, attempt / "tmp", attempt / "bridge"):
            folder.mkdir(parents=True, exist_ok=True)
        jobs.write_program(program, data / jobs.PROGRAM_CHANNEL)
        for name, folder in job.channels.items():
            (data / name).symlink_to(folder.resolve(), target_is_directory=True)
        channel = {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated"}
        _write_json(config / "inputdataconfig.json", dict.fromkeys([*job.channels, jobs.PROGRAM_CHANNEL], channel))
        _write_json(config / "hyperparameters.json", dict(job.hyperparameters))
        _write_json(config / "resourceconfig.json", {"current_host": "algo-1", "hosts": ["algo-1"]})
        return attempt

    def _start(self, job: TrainingJob, attempt: Path) -> None:
        python = shutil.which(self.python or sys.executable) or str(self.python)
        with (attempt / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                [python, str(ENTRY_POINT)],
                env=self._environment(job, attempt, python) | self._sandbox(job, attempt, python),
                cwd=attempt,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        owner, now = os.getpid(), time.time()
        record = {"pid": process.pid, "created": processes.creation_time(process.pid), "started": now}
        record |= {"owner": owner, "owner_created": processes.creation_time(owner)}
        _write_json(attempt / "process.json", record)
        monitor = threading.Thread(target=self._enforce_limits, args=(job, attempt, process), daemon=True)
        monitor.start()

    def _environment(self, job: TrainingJob, attempt: Path, python: str) -> dict[str, str]:
        """Return the complete environment of the program: its folders and the job's variables."""
        path = os.pathsep.join([str(Path(python).parent), os.defpath])
        clean = {"PATH": path, "HOME": str(attempt), "TMPDIR": str(attempt / "tmp"), "LANG": "C.UTF-8"}
        clean |= {"PYTHONUNBUFFERED": "1", **dict.fromkeys(THREAD_LIMITS, str(self.threads))}
        clean["OMP_WAIT_POLICY"] = "PASSIVE"  # with spinning threads LightGBM was 4 times slower on a busy machine
        own = {processes.JOB_FOLDER_VARIABLE: str(attempt), "TRAINING_JOB_NAME": job.name}
        own |= {"RATCHET_PARENT_PID": str(os.getpid()), "RATCHET_STATUS_FILE": str(attempt / "status.json")}
        return {**clean, **job.environment, **own}

    def _sandbox(self, job: TrainingJob, attempt: Path, python: str) -> dict[str, str]:
        """Return the variables that let the entry point start the program in a sandbox; none without isolation."""
        if self.isolation != "bubblewrap":
            return {}
        variables, channels = {"HOME": str(attempt / "tmp")}, [folder.resolve() for folder in job.channels.values()]
        url = job.environment.get("MLFLOW_TRACKING_URI", "")
        if not self.network:
            url, tracking, hosts = processes.tracking_inside(url)
            write_text_atomically(attempt / "bridge" / "hosts", hosts)
            if url.startswith("http"):
                variables |= {"MLFLOW_TRACKING_URI": url, "RATCHET_TRACKING": json.dumps(tracking)}
        command = processes.sandbox_command(attempt, python, channels, network=self.network)
        return variables | {"RATCHET_SANDBOX": json.dumps(command)}

    def _enforce_limits(self, job: TrainingJob, attempt: Path, process: "subprocess.Popen[bytes]") -> None:
        """Enforce the job's limits until it ends, then end the processes that it left running."""
        deadline = time.monotonic() + job.max_seconds
        while process.poll() is None:
            memory_mb = processes.resident_mb(process.pid)
            if job.max_memory_mb is not None and memory_mb > job.max_memory_mb:
                limit = f"its limit of {job.max_memory_mb} MB (max_memory_mb)"
                self._end_with_reason(attempt, JobStatus.failed, f"used {memory_mb:.0f} MB of memory, above {limit}")
            elif time.monotonic() > deadline:
                limit = f"its limit of {job.max_seconds} s (max_seconds)"
                self._end_with_reason(attempt, JobStatus.stopped, f"ran longer than {limit}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=LIMIT_CHECK_SECONDS)
        processes.end_processes(attempt, grace_seconds=0)

    def _end_with_reason(self, attempt: Path, status: JobStatus, reason: str) -> None:
        """Write the reason, then end the job's processes, so that the reason exists before the end is visible."""
        seconds = time.time() - self._read(attempt / "process.json")["started"]
        if not (attempt / "stop_reason.json").exists():
            _write_json(attempt / "stop_reason.json", {"status": status, "reason": reason, "seconds": seconds})
        processes.end_processes(attempt, self.grace_seconds)

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Hold the lock of a job, so that one process or thread at a time starts it or reads its state."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / f".{name}.lock").open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def _job_folder(self, name: str) -> Path:
        return self.root.resolve() / name

    def _attempts(self, name: str) -> list[Path]:
        return sorted(path for path in self._job_folder(name).glob("[0-9]*") if path.is_dir())

    def _attempt(self, name: str) -> Path | None:
        attempts = self._attempts(name)
        return attempts[-1] if attempts else None

    def _current(self, name: str) -> Path:
        if (attempt := self._attempt(name)) is None:
            existing = sorted(path.name for path in self.root.glob("*") if path.is_dir())
            raise NotFound(f"no training job {name!r} in {self.root}; there are {existing}")
        return attempt

    def _read(self, path: Path) -> dict[str, Any]:
        """Return the content of a state file; empty if it was not written."""
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return {}


def _write_json(path: Path, content: object) -> None:
    """Write JSON atomically, so that a reader sees all of it or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(path, json.dumps(content, sort_keys=True))
