"""The gateway's figures: `python -m tests.benchmarks.gateway [durability] [latency] [forgery]`.

durability: deliveries over HTTP to a gateway that is killed repeatedly, with a real Prefect server behind it.
latency: deliveries at a steady rate; each response is timed from the moment when the request was due. forgery: random
mutations. Everything runs on 127.0.0.1; the number of requests and the time are bounded. The first two use a ledger
on SQLite, or on a PostgreSQL server that is started for it (`--ledger postgresql`).
"""

import argparse
import asyncio
import io
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import prefect
import psutil
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId, FlowRunFilter
from prefect.context import refresh_global_settings_context

from blocks.database.ledger import SqlLedger
from blocks.inbox.base import Inbox
from deployments.register import read_environment_settings, write_trust_file
from deployments.state import ROOT
from local.processes import ManagedProcess, free_port, start_process, wait_until_ready
from local.stack import Stack
from tests.fixtures.gateway import Gateway, forgeries
from tests.fixtures.hooks import SECRET, hook, push
from tests.fixtures.postgres_server import running_server, server_binaries

RULES = """
senders: {github: {secrets: [env:HOOK]}}
repositories: [{name: acme/models, sender: github, clone: "https://github.com/acme/models.git"}]
rules: [{name: bench, paths: ["models/churn/**"], deployment: bench/bench}]
"""


@dataclass
class Bench:
    """A Prefect server, and a gateway that can be killed and restarted; all state is in one folder."""

    state: Path
    ports: dict[str, int]
    ledger_url: str
    processes: list[ManagedProcess] = field(default_factory=list)
    gateway: ManagedProcess | None = None

    @property
    def variables(self) -> dict[str, str]:
        return {**Stack(self.state, self.ports).environment_variables(), "HOOK": SECRET}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['gateway']}"

    @property
    def inbox(self) -> Inbox:
        return SqlLedger(url=self.ledger_url).inbox()

    def start_gateway(self) -> None:
        command = [sys.executable, "-m", "services.gateway", "serve", "--port", str(self.ports["gateway"]),
                   "--triggers", str(self.state / "triggers.yaml")]  # fmt: skip
        log = self.state / "gateway.log"
        self.gateway = start_process("gateway", command, environment=self.variables, folder=ROOT, log=log)
        wait_until_ready(self.gateway, f"{self.url}/ping")

    def kill_gateway(self) -> None:
        assert self.gateway is not None
        psutil.Process(self.gateway.pid).send_signal(signal.SIGKILL)
        psutil.Process(self.gateway.pid).wait(10)


@contextmanager
def bench(database: str, *, with_prefect: bool = True) -> Iterator[Bench]:
    """Start the programs to measure, and stop and remove everything at the end."""
    with tempfile.TemporaryDirectory(prefix="ratchet-gateway-") as folder, server_of(database) as url:
        ports = {name: free_port(0) for name in ("prefect", "mlflow", "endpoints", "gateway")}
        state = Path(folder)
        ledger_url = f"{url}/postgres" if url else f"sqlite:///{state}/ledger.db"
        it = Bench(state, ports, ledger_url)
        write_trust(it)
        (it.state / "triggers.yaml").write_text(RULES)
        try:
            if with_prefect:
                command = [sys.executable, "-m", "local.prefect_server", "--port", str(ports["prefect"])]
                # No worker starts the runs, and marking thousands of them as late locks SQLite for minutes.
                variables = {**it.variables, "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false"}
                server = start_process(
                    "prefect", command, environment=variables, folder=ROOT, log=it.state / "prefect.log"
                )
                it.processes.append(server)
                wait_until_ready(server, f"http://127.0.0.1:{ports['prefect']}/api/health")
            it.start_gateway()
            yield it
        finally:
            for process in [*it.processes, *([it.gateway] if it.gateway else [])]:
                process.stop()


def server_of(database: str) -> AbstractContextManager[str | None]:
    """Start the database server, if there is one; yield the address of its databases without their names."""
    if database == "sqlite":
        return nullcontext()
    if (binaries := server_binaries()) is None:
        sys.exit("no PostgreSQL server here: neither initdb in PATH nor /usr/lib/postgresql")
    return running_server(binaries)


def write_trust(it: Bench) -> None:
    """Write the trust file of an environment that stores the ledger there."""
    settings = read_environment_settings("local", it.variables)
    ledger = {**settings["ledger"], "url": it.ledger_url}
    write_trust_file(it.state / "trust" / "local.toml", {**settings, "ledger": ledger})


def deploy(it: Bench) -> str:
    """Create the deployment that the rule names, and return its id. No worker polls it, so its runs stay scheduled."""
    import os

    os.environ.update(it.variables)
    refresh_global_settings_context()
    with get_client(sync_client=True) as client:
        flow_id = client.create_flow_from_name("bench")
        return str(client.create_deployment(flow_id=flow_id, name="bench", entrypoint="none.py:none"))


def runs_of(deployment_id: str) -> int:
    only = DeploymentFilter(id=DeploymentFilterId(any_=[deployment_id]))  # type: ignore[list-item]  # text does as well
    with get_client(sync_client=True) as client:
        return int(client.count_flow_runs(deployment_filter=only, flow_run_filter=FlowRunFilter()))


def given(number: int) -> httpx.Request:
    body = push(after=f"{number + 1:040x}", filler="x" * 6_000)
    return hook("github", "push", body, id=f"d-{number}").request


def durability(database: str, deliveries: int, kills: int, seed: int) -> None:
    """Send this many deliveries, a fifth of them repeated; kill the gateway this many times; then count."""
    chance = random.Random(seed)
    unique = deliveries * 4 // 5
    plan = [*range(unique), *(chance.randrange(unique) for _ in range(deliveries - unique))]
    chance.shuffle(plan)
    acknowledged: set[int] = set()
    sent = 0
    lock = threading.Lock()
    with bench(database) as it:
        deployment_id, begun = deploy(it), time.monotonic()

        def send(client: httpx.Client, number: int) -> None:
            nonlocal sent
            request = given(number)
            for _ in range(400):  # a sender that retries; for GitHub a person does it, or `missed`
                try:
                    url = f"{it.url}/hooks/github"
                    answer = client.post(url, content=request.content, headers=request.headers, timeout=20)
                    if answer.status_code in {200, 202}:
                        with lock:
                            acknowledged.add(number)
                            sent += 1
                        return
                except httpx.HTTPError:
                    pass
                time.sleep(0.1)
            raise AssertionError(f"delivery {number} was never taken")

        def kill_again_and_again() -> None:
            for done in range(1, kills + 1):
                while sent < done * deliveries // (kills + 1):
                    time.sleep(0.01)
                time.sleep(chance.uniform(0, 0.2))
                it.kill_gateway()
                it.start_gateway()

        killer = threading.Thread(target=kill_again_and_again)
        killer.start()
        with httpx.Client() as client, ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: send(client, number), plan))
        killer.join()
        taken = time.monotonic() - begun
        deadline = time.monotonic() + 1_500
        while it.inbox.pending_attempts(1) and time.monotonic() < deadline:
            time.sleep(1)
        entries = it.inbox.delivery_statuses(10 * deliveries)
        ids = {entry.turn.delivery.id for entry in entries}
        lost = sum(f"github:d-{number}" not in ids for number in acknowledged)
        runs = [run.run_id for entry in entries for run in (entry.outcome.runs if entry.outcome else ())]
        open_still = sum(entry.outcome is None for entry in entries)
        print(f"durability on {database} (seed {seed}): {sent:,} acknowledged in {taken:.0f} s, {kills} kills; all runs started after "
              f"{time.monotonic() - begun:.0f} s")  # fmt: skip
        print(f"  acknowledged and lost: {lost}; waiting still: {open_still}; deliveries: {len(entries):,}; runs known: "
              f"{len(runs):,}, of them different: {len(set(runs)):,}; runs in Prefect: {runs_of(deployment_id):,}")  # fmt: skip


async def stream(port: int, rate: float, seconds: float, first: int) -> list[tuple[float, int]]:
    """Send at a steady rate over 64 connections; return seconds and status of each, from the time it was due.

    Without httpx: its connection pool takes more processor time than the gateway when a few hundred requests wait.
    """
    numbers = iter(range(int(rate * seconds)))
    found: list[tuple[float, int]] = []
    begun = time.monotonic()

    async def one_connection() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in numbers:
            request = given(first + number)
            head = b"".join(name + b": " + value + b"\r\n" for name, value in request.headers.raw)
            due = begun + number / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            writer.write(b"POST /hooks/github HTTP/1.1\r\n" + head + b"\r\n" + request.content)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
            found.append((time.monotonic() - due, int(answer.split(b" ", 2)[1])))
        writer.close()

    await asyncio.gather(*(one_connection() for _ in range(64)))
    return found


def latency(database: str, rate: float, seconds: float) -> None:
    """Measure responses at a steady rate: first the gateway's app alone (Prefect is down), then while runs start."""
    for with_prefect in (False, True):
        with bench(database, with_prefect=with_prefect) as it:
            if with_prefect:
                deploy(it)
            asyncio.run(stream(it.ports["gateway"], rate / 4, 4, 10_000_000))  # warm-up
            found = asyncio.run(stream(it.ports["gateway"], rate, seconds, 0))
            times = sorted(each for each, _ in found)
            cuts = statistics.quantiles(times, n=1000)
            started = len(it.inbox.delivery_statuses(1_000_000, state="started"))
            print(f"latency on {database} at {rate:g} requests/s for {seconds:g} s, Prefect {'there' if with_prefect else 'away'}: p50 "
                  f"{cuts[499] * 1000:.0f} ms, p99 {cuts[989] * 1000:.0f} ms, max {times[-1] * 1000:.0f} ms; answers "
                  f"{sorted({status for _, status in found})}, {len(found):,} in all; runs started meanwhile: {started:,}")  # fmt: skip


def forgery(count: int, seed: int) -> None:
    """Send random mutations of verified deliveries, in this process."""
    gateway, begun = Gateway(), time.monotonic()
    answers: dict[tuple[int, bytes], int] = {}
    for part in range(0, count, 5_000):
        for answer in gateway.send(*forgeries(min(5_000, count - part), seed + part)):
            key = answer.status_code, answer.content
            answers[key] = answers.get(key, 0) + 1
    told = ", ".join(f"{number:,} × {status} {body.decode()}" for (status, body), number in answers.items())
    print(
        f"forgery (seed {seed}): {told}; deliveries stored: {len(gateway.inbox.delivery_statuses())}; {time.monotonic() - begun:.0f} s"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the named parts, or all of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gateway", description=__doc__)
    parser.add_argument("what", nargs="*", default=["latency", "durability", "forgery"])
    parser.add_argument("--ledger", choices=("sqlite", "postgresql"), default="sqlite", help="where the inbox is kept")
    parser.add_argument("--deliveries", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--mutations", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the started programs are stopped then, too
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # report what was measured, even if a later part fails
    load = subprocess.run(["uptime"], capture_output=True, text=True, check=False).stdout.strip()
    print(f"prefect {prefect.__version__}, {psutil.cpu_count()} cores; {load}")
    if "latency" in options.what:
        latency(options.ledger, options.rate, options.seconds)
    if "durability" in options.what:
        durability(options.ledger, options.deliveries, options.kills, options.seed)
    if "forgery" in options.what:
        forgery(options.mutations, options.seed)


if __name__ == "__main__":
    main()
