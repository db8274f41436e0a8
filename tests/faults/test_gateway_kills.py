"""A gateway is killed while it accepts deliveries and starts runs: no acknowledged one is lost, none runs twice.

App and dispatcher are the real ones; a folder with one file per run replaces Prefect. `python -m
tests.benchmarks.gateway` does the same over HTTP, with a real Prefect server and 10,000 deliveries.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

import pytest

from blocks.database.ledger import SqlLedger
from blocks.inbox.base import IncomingDelivery
from deployments.git import RepositoryCache
from deployments.secret_store import SecretStore
from services.gateway.dispatch import Dispatcher
from services.gateway.ingest import read_delivery, response_to
from services.gateway.run_starter import FlowRunSpec
from services.gateway.signatures import VerifiedDelivery
from tests.fixtures.hooks import hook, push, triggers
from tests.processes import messages_until_killed

KILLS, DELIVERIES = 20, 160


class FolderStarter:
    """Starts each run once per key, as Prefect does, and survives a kill of the caller; each call is a line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, order: FlowRunSpec) -> str:
        run_id = str(uuid5(NAMESPACE_URL, order.idempotency_key))
        place = self.folder / run_id
        with (self.folder / "calls").open("a") as calls:
            calls.write(f"{order.idempotency_key}\n")
        if not place.exists():
            place.write_text(order.idempotency_key)
        time.sleep(0.002)  # stands for a request over the network, during which a kill may come
        return run_id


def gateway(url: str, folder: Path, numbers: list[int], acknowledge: Callable[[int], None]) -> None:
    """Accept deliveries and acknowledge each; start runs at the same time, until killed."""
    inbox, rules = SqlLedger(url=url).inbox(), triggers()
    dispatcher = Dispatcher(
        inbox, rules, FolderStarter(folder), RepositoryCache(folder), SecretStore({}), holder="the one gateway"
    )
    woken = threading.Event()
    threading.Thread(target=dispatcher.run, args=(threading.Event(), woken), daemon=True).start()
    for number in numbers:
        after = f"{number + 1:040x}"  # of one commit, with all its files: git need not be asked
        commits = [{"id": after, "added": [], "removed": [], "modified": ["models/churn/train.py"]}]
        given = hook("github", "push", push(after=after, commits=commits), id=f"d-{number}")
        read = read_delivery(rules, "github", given.raw, given.body, VerifiedDelivery(), datetime.now(UTC))
        assert isinstance(read, IncomingDelivery)
        assert response_to(read, inbox.receive_all([read])[0]).status in {200, 202}
        acknowledge(number)
        woken.set()
    threading.Event().wait()


@pytest.mark.slow
def test_twenty_kills_lose_no_acknowledged_delivery_and_double_no_run(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance, url, folder = random.Random(seed), f"sqlite:///{tmp_path}/ledger.db", tmp_path / "runs"
    folder.mkdir()
    SqlLedger(url=url).inbox().pending_attempts()
    left, acknowledged = list(range(DELIVERIES)), set[int]()
    for _ in range(KILLS):
        repeats = chance.sample(sorted(acknowledged), min(3, len(acknowledged)))
        now = repeats + left[: DELIVERIES // KILLS]
        words, seconds = 1 + len(repeats), chance.uniform(0.0, 0.12)  # after at least one that is no repeat
        acknowledged |= set(messages_until_killed(gateway, url, folder, now, words=words, seconds=seconds))
        left = [number for number in left if number not in acknowledged]
    assert len(acknowledged) >= KILLS, "something was at work whenever it was killed"

    inbox = SqlLedger(url=url).inbox()
    last = Dispatcher(
        inbox, triggers(), FolderStarter(folder), RepositoryCache(folder), SecretStore({}), holder="the one gateway"
    )
    while inbox.pending_attempts():
        last.run_once()
    entries = {entry.turn.delivery.id: entry for entry in inbox.delivery_statuses(10_000)}
    lost = [number for number in acknowledged if f"github:d-{number}" not in entries]
    assert lost == []
    assert {entry.state for entry in entries.values()} == {"started"}
    runs = Counter(run.run_id for entry in entries.values() for run in (entry.outcome.runs if entry.outcome else ()))
    started = {place.name for place in folder.iterdir() if place.name != "calls"}
    assert set(runs.values()) == {1}
    assert set(runs) == started, "every run that was started is known, and the reverse"
    assert len(started) == len(entries)
