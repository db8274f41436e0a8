"""SQLite storage of the approvals page (mode 0600): accounts, sessions, failed attempts, secrets.

Passwords are stored as Argon2id hashes, tokens as SHA-256.
"""

import os
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from blocks.common.errors import Unavailable

_SCHEMA = """
CREATE TABLE IF NOT EXISTS accounts (
    key TEXT PRIMARY KEY, name TEXT NOT NULL, password TEXT NOT NULL, roles TEXT NOT NULL,
    disabled INTEGER NOT NULL, changed_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS sessions (
    digest TEXT PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, via TEXT NOT NULL, groups_ TEXT NOT NULL,
    seen_at REAL NOT NULL, ends_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS failures (what TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS failures_by_what ON failures (what, at);
CREATE TABLE IF NOT EXISTS pending_sign_ins (
    digest TEXT PRIMARY KEY, next_path TEXT NOT NULL, ends_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL);
"""


class ApprovalsStore:
    """The file. Each call is one transaction, so commands and the gateway can use the file at the same time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        path.chmod(0o600)
        with self._open() as database:
            database.executescript(_SCHEMA)

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """Return the rows that a query finds. Raises Unavailable."""
        with self._open() as database:
            return database.execute(query, values).fetchall()

    def write(self, *statements: tuple[str, Sequence[Any]]) -> int:
        """Execute all statements or none, and return how many rows the last one changed. Raises Unavailable."""
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")
            changed = 0
            for statement, values in statements:
                changed = database.execute(statement, values).rowcount
            database.execute("COMMIT")
            return changed

    def secret(self, name: str) -> bytes:
        """Return 32 random bytes, created at the first use and stored."""
        self.write(("INSERT OR IGNORE INTO secrets VALUES (?, ?)", (name, secrets.token_bytes(32))))
        return bytes(self.rows("SELECT value FROM secrets WHERE name = ?", (name,))[0]["value"])

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            database = sqlite3.connect(self.path, timeout=10, isolation_level=None)
            try:
                database.row_factory = sqlite3.Row
                yield database
            finally:
                database.close()
        except sqlite3.OperationalError as cause:
            raise Unavailable(f"the approvals page's file {self.path.name} cannot be used: {cause}") from cause


def open_store(state: Path) -> ApprovalsStore:
    """Open the accounts and sessions of a state folder."""
    return ApprovalsStore(store_file(state))


def store_file(state: Path) -> Path:
    """Return the file of accounts and sessions in a state folder."""
    return state / "gateway" / "accounts.db"
