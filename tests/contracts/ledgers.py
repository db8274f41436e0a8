"""The ledgers that the contract suites of their ports run over: fake, SQLite, and PostgreSQL where it is installed."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.database.fake import FakeLedger
from blocks.database.ledger import Ledger, SqlLedger
from tests.contracts.postgres_server import running_server, server_binaries

SQL = ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)]


@pytest.fixture(scope="session")
def postgres() -> Iterator[tuple[str, Path]]:
    if (binaries := server_binaries()) is None:
        pytest.skip("no PostgreSQL server here: neither initdb in PATH nor /usr/lib/postgresql")
    with running_server(binaries) as url:
        yield url, binaries


@pytest.fixture(params=["fake", *SQL])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    return FakeLedger() if request.param == "fake" else make_ledger(request, tmp_path, request.param)


@pytest.fixture(params=SQL)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> SqlLedger:
    return make_ledger(request, tmp_path, request.param)


def make_ledger(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> SqlLedger:
    """Return a ledger in a new file, or in a new database of the session's server."""
    if kind == "sqlite":
        return SqlLedger(url=f"sqlite:///{tmp_path}/ledger.db")
    url, binaries = request.getfixturevalue("postgres")
    name = "t" + str(abs(hash(tmp_path)))
    server = ["-h", "127.0.0.1", "-p", url.rpartition(":")[2], "-U", "ratchet"]
    subprocess.run([str(binaries / "createdb"), *server, name], check=True, timeout=60)
    return SqlLedger(url=f"{url}/{name}")


def again(ledger: Ledger) -> Ledger:
    """Return the ledger as another process would open it."""
    return SqlLedger(url=ledger.url) if isinstance(ledger, SqlLedger) else ledger
