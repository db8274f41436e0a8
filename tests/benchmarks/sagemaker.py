"""The figures of docs/local-sagemaker.md: `python -m tests.benchmarks.sagemaker [--only PART …]`.

| part     | what it measures |
|---|---|
| overhead | the same training by the local trainer and as a job on the local SageMaker: seconds by step              |
| canary   | updates with a canary under load: lost requests                                                          |
| kills    | the submitting process is killed at random moments until one attempt succeeds: started jobs              |
| throttle | half of all calls are throttled: seconds, and started jobs                                               |
| story    | ingest, retrain, approve, predict: `environment` local and aws on one stack, MLflow's artifacts in S3    |
"""

import argparse
import itertools
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from blocks.trainers.base import Trainer, TrainingJob
from blocks.trainers.local import LocalTrainer
from local.sagemaker.faults import Fault
from tests.checkout import ROOT
from tests.fixtures.local_aws import SageMakerLab, local_aws, sagemaker_endpoint, sagemaker_trainer, tiny_release
from tests.processes import messages_until_killed

NOTHING = "import os\nopen(os.environ['SM_MODEL_DIR'] + '/m', 'w').write('made')\n"
NUMBERS = itertools.count()
SLOW = "import os, time\ntime.sleep(1.5)\nopen(os.environ['SM_MODEL_DIR'] + '/m', 'w').write('made')\n"


def a_job(folder: Path, name: str, program: str) -> TrainingJob:
    """Return a job with one small file to train on."""
    (folder / name).mkdir(parents=True)
    (folder / name / "train.py").write_text(program)
    (folder / "train").mkdir(exist_ok=True)
    (folder / "train" / "part-0.csv").write_text("a,b\n1,2\n")
    return TrainingJob(name, folder / name, {"train": folder / "train"})


def churn_job(folder: Path, name: str) -> TrainingJob:
    """Return the churn model's job on all customers."""
    from tests.fixtures.support import customers

    (folder / "rows").mkdir(exist_ok=True)
    table = pa.Table.from_pandas(customers().drop(columns="customer_id"), preserve_index=False)
    pq.write_table(table, folder / "rows" / "part-0.parquet")
    return TrainingJob(name, ROOT / "models" / "churn", {"train": folder / "rows"})


def timed(work: Callable[[], object]) -> float:
    """Return the seconds of the work."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


def overhead(folder: Path, desk: SageMakerLab, times: int = 5) -> str:
    """Train with both trainers in turn: churn, and a program that does nothing, which shows the overhead alone."""
    made: dict[str, Callable[[str], TrainingJob]] = {
        "churn": lambda name: churn_job(folder, name),
        "a program that does nothing": lambda name: a_job(folder / name, name, NOTHING),
    }
    return "\n".join(f"overhead, {what}: {compared(folder, desk, job, times)}" for what, job in made.items())


def compared(folder: Path, desk: SageMakerLab, job_of: Callable[[str], TrainingJob], times: int) -> str:
    """Return the medians of both, their difference, and every run."""
    trainers: dict[str, Trainer] = {
        "local process": LocalTrainer(root=folder / "jobs"),
        "local SageMaker": sagemaker_trainer(desk, folder, poll_seconds=0.2),
    }
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    for turn in range(times):
        for number, (name, trainer) in enumerate(trainers.items()):
            job = job_of(f"job-{next(NUMBERS)}-{number}-{turn}")
            seconds[name].append(timed(lambda job=job, trainer=trainer: trainer.run(job, lambda _line: None)))
    local, remote = (statistics.median(found) for found in seconds.values())
    runs = "; ".join(f"{name}: " + ", ".join(f"{s:.1f}" for s in found) for name, found in seconds.items())
    return f"{remote - local:.2f} s (median of {times}; {runs} s)"


def canary(folder: Path, desk: SageMakerLab, updates: int = 20) -> str:
    """Update with a canary under the load of two clients, and count their responses."""
    from tests.fixtures.sagemaker_load import load

    endpoint = sagemaker_endpoint(desk, canary_percent=20, bake_seconds=60)
    endpoint.switch(tiny_release(folder, "1", "canaries"))
    with load(endpoint, "canaries") as seen:
        for version in range(2, updates + 2):
            endpoint.switch(tiny_release(folder, str(version), "canaries"))
    lost = {what: count for what, count in seen.items() if not what.isdigit()}
    return f"canary: {updates} updates, {sum(seen.values())} requests, {sum(lost.values())} lost {lost or ''}"


def submit_and_follow(trainer: Trainer, job: TrainingJob, say: Callable[[str], None]) -> None:
    """Submit a job and follow it; this process is going to be killed."""
    say("begun")
    trainer.run(job, lambda _line: None)
    say("ended")
    signal.pause()


def kills(folder: Path, desk: SageMakerLab, rounds: int = 50, seed: int = 7) -> str:
    """Kill the process that submits and follows a job at random moments, then let one finish; count the jobs."""
    chance, jobs, killed = random.Random(seed), Counter[int](), 0
    for number in range(rounds):
        job = a_job(folder / f"kill-{number}", f"kill-{number}-{desk.bucket[-8:]}", SLOW)
        trainer = sagemaker_trainer(desk, folder, poll_seconds=0.05)
        for _ in range(chance.randint(1, 3)):
            said = messages_until_killed(submit_and_follow, trainer, job, words=1, seconds=chance.uniform(0.0, 1.0))
            killed += "ended" not in said
        trainer.run(job, lambda _line: None)
        jobs[len(desk.sagemaker.list_training_jobs(NameContains=job.name)["TrainingJobSummaries"])] += 1
    second = sum(count for started, count in jobs.items() if started != 1)
    return f"kills: {killed} kills over {rounds} jobs, {second} of them with a second job"


def throttle(folder: Path, desk: SageMakerLab) -> str:
    """Throttle half of all calls while a job is submitted and followed."""
    desk.server.faults.add(Fault("throttle", probability=0.5))
    job = a_job(folder / "throttled", f"throttled-{desk.bucket[-8:]}", SLOW)
    try:
        seconds = timed(lambda: sagemaker_trainer(desk, folder, poll_seconds=1.0).run(job, lambda _line: None))
    finally:
        desk.server.faults.clear()
    count = len(desk.sagemaker.list_training_jobs(NameContains=job.name)["TrainingJobSummaries"])
    return f"throttle: half of all calls, a job of 1.5 s done after {seconds:.1f} s, {count} job"


def story(folder: Path, desk: SageMakerLab) -> str:
    """Run the same story in both environments on one stack, with MLflow's artifacts in S3."""
    from local.stack import use_running_stack
    from local.supervisor import down
    from tests.checkout import copy_checkout, start_stack
    from tests.fixtures.aws_story import cancel_run_while_training as cancelled
    from tests.fixtures.aws_story import register_aws, run_story

    os.environ |= {"AWS_ENDPOINT_URL": desk.server.url, "MLFLOW_S3_ENDPOINT_URL": desk.server.url,
                   "RATCHET_ARTIFACTS": f"s3://{desk.bucket}/mlflow"}  # fmt: skip
    (folder / "checkout").mkdir()
    checkout = copy_checkout(folder / "checkout", like_churn=("first", "second", "third"))
    try:
        start_stack(checkout, folder / "state")
        stack = use_running_stack(folder / "state")
        register_aws(stack, desk.server.url, desk.bucket)
        run_story("first", "local", folder / "first")  # the first story of each environment warms the stack up
        told = {
            "local": run_story("second", "local", folder / "second"),
            "aws": run_story("third", "aws", folder / "state" / "demo"),
        }
        print(f"cancel: the training job of a cancelled run is {cancelled('third', 'aws', desk)}", flush=True)
    finally:
        down(folder / "state")
    same = told["local"].predictions == told["aws"].predictions
    artifacts = desk.s3.list_objects_v2(Bucket=desk.bucket, Prefix="mlflow/")["KeyCount"]
    rows = [f"| {step} | {told['local'].seconds[step]:.1f} | {seconds:.1f} |"
            for step, seconds in told["aws"].seconds.items() if step in told["local"].seconds]  # fmt: skip
    head = f"story: the same predictions: {same}; {artifacts} artifacts of MLflow in S3"
    return "\n".join([head, "", "| step | local, s | aws, s |", "|---|---|---|", *rows])


PARTS: dict[str, Callable[[Path, SageMakerLab], str]] = {
    "overhead": overhead, "canary": canary, "kills": kills, "throttle": throttle, "story": story,
}  # fmt: skip


def main(arguments: list[str]) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.sagemaker", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    for part in parser.parse_args(arguments).only:
        folder = Path(tempfile.mkdtemp(prefix="bench-sagemaker-"))
        try:
            with local_aws(folder / "server") as server:
                print(PARTS[part](folder, SageMakerLab(server)), flush=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
