"""The ledgers that a contract suite runs over: the fake, SQLite, and PostgreSQL where its server is installed."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blocks.ledger.fake import FakeLedger
from blocks.ledger.sql import SqlLedger
from tests.contracts.postgres_server import running_server, server_binaries


@pytest.fixture(scope="session")
def postgres() -> Iterator[tuple[str, Path]]:
    if (binaries := server_binaries()) is None:
        pytest.skip("no PostgreSQL server here: neither initdb in PATH nor /usr/lib/postgresql")
    with running_server(binaries) as url:
        yield url, binaries


def make_ledger(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> Any:
    if kind == "fake":
        return FakeLedger()
    if kind == "sqlite":
        return SqlLedger(url=f"sqlite:///{tmp_path}/ledger.db")
    url, binaries = request.getfixturevalue("postgres")
    name = "t" + str(abs(hash(tmp_path)))
    server = ["-h", "127.0.0.1", "-p", url.rpartition(":")[2], "-U", "ratchet"]
    subprocess.run([str(binaries / "createdb"), *server, name], check=True, timeout=60)
    return SqlLedger(url=f"{url}/{name}")
