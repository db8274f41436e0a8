"""The as-of contract under everything at once: appends, compactions, collections, kills and readers, drawn at random.

A second process does the same to the same lake and is killed at any moment. Whatever happens, a read that was
fixed once returns the same rows ever after, to the byte, and every snapshot is whole.
"""

import hashlib
import random
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import cache

import numpy as np
import pyarrow as pa
import pytest

from blocks.common.errors import LostRace
from blocks.lake.local import LocalLake
from tests.contracts.lakes import as_bytes
from tests.processes import APART


def rows_of(key):
    """The rows of one append, which follow from its key: 1 to 3,000, sometimes with a column more or less."""
    chance = np.random.default_rng(int(hashlib.sha256(key.encode()).hexdigest()[:8], 16))
    count = int(chance.integers(1, 3_000)) if chance.random() < 0.3 else int(chance.integers(1, 40))
    table = {"key": [key] * count, "value": chance.normal(size=count), "text": chance.choice(["a", "b", None], count)}
    if chance.random() < 0.3:
        table[f"more{chance.integers(0, 4)}"] = chance.integers(0, 9, count)
    return pa.table(table).append_column("_bucket", pa.array(chance.integers(0, 10_000, count).astype(np.int32)))


@cache
def count_of(key):
    return len(rows_of(key))


def change(lake, chance, key):
    """Append (as a stream or a table), compact or collect, and return which it was.

    Whoever collects takes no heed of writers at work.
    """
    draw = chance.random()
    rows = rows_of(key)
    if draw < 0.12:
        lake.compact("t", at=datetime.now(UTC))
        return "compactions"
    if draw < 0.24:
        lake.collect("t", before=datetime.now(UTC) + timedelta(hours=1))
        return "collections"
    stream = rows.to_reader(max_chunksize=10) if chance.random() < 0.5 else rows
    lake.append("t", stream, source="test", key=key, at=datetime.now(UTC))
    return "appends"


def work(root, seed):
    """Change the lake until killed."""
    lake, chance = LocalLake(root=root), random.Random(seed)
    for number in range(1_000_000):
        try:
            change(lake, chance, f"child-{seed}-{number}")
        except LostRace:
            continue


def fingerprint(lake, read, below):
    return hashlib.sha256(as_bytes(lake.read(read, below_bucket=below))).hexdigest()


class Witness:
    """Remembers what fixed reads returned, and holds the lake to it."""

    def __init__(self, root, chance):
        self.root, self.chance, self.kept = root, chance, LocalLake(root=root)
        self.seen, self.digests = {}, {}

    def fix(self):
        lake = LocalLake(root=self.root)
        if lake.datasets():
            now = lake.as_of("t")
            self.check(now.id)

    def check(self, moment):
        lake = self.chance.choice([LocalLake(root=self.root), self.kept])
        read = lake.as_of("t", moment)
        below = self.chance.choice([None, None, 100, 2_500])
        found = fingerprint(lake, read, below)
        assert self.seen.setdefault((read.id, below), found) == found
        assert self.digests.setdefault(read.id, (read.digest, read.rows)) == (read.digest, read.rows)
        if below is None:
            keys = Counter(lake.read(read, columns=["key"])["key"].to_pylist())
            assert keys == {snapshot.key: count_of(snapshot.key) for snapshot in read.snapshots}

    def check_any(self):
        if self.seen:
            self.check(self.chance.choice(sorted({moment for moment, _ in self.seen})))


def live(root, seed, operations):
    """Do so many operations, of which one in forty begins or kills the other process; return how often each was done."""
    chance, done = random.Random(seed), Counter()
    witness = Witness(root, chance)
    lake = witness.kept
    other = None
    for number in range(operations):
        draw = chance.random()
        if draw < (0.05 if other is None else 0.35):  # it is never long alive: what it adds, every check reads
            if other is None:
                other = APART.Process(target=work, args=(root, chance.randrange(1_000_000)))
                other.start()
                time.sleep(chance.uniform(0.05, 0.2))
            else:
                other.kill()
                other.join()
                other = None
                done["kills"] += 1
        elif draw < 0.55:
            try:
                done[change(lake, chance, f"parent-{number}")] += 1
            except LostRace:  # the other one collected what this one was writing
                done["lost races"] += 1
        elif draw < 0.7:
            witness.fix()
            done["reads"] += 1
        else:
            witness.check_any()
            done["reads"] += 1
    if other is not None:
        other.kill()
        other.join()
    for moment in sorted({moment for moment, _ in witness.seen})[-30:]:
        witness.check(moment)
    sequences = [snapshot.sequence for snapshot in LocalLake(root=root).as_of("t").snapshots]
    assert sequences == list(range(1, len(sequences) + 1))
    return done


@pytest.mark.slow
def test_every_read_repeats_whatever_happens(tmp_path):
    """A thousand, and more, by `make soak-lake`."""
    done = live(tmp_path / "lake", seed=3, operations=100)
    assert min(done["appends"], done["compactions"], done["collections"], done["kills"]) >= 1
    assert done["reads"] >= 30
