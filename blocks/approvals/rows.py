"""Rows that decide, each sealed by a link of the chain: a row that was added, changed or removed otherwise is refused.

The row and the link with its digest are added by one transaction, and the link is signed by the key of records. Rows
come back in the order of their links. What a process has verified it does not verify again: it reads the new links.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from threading import Lock
from typing import Any

from sqlalchemy import Connection, Table, insert, select
from sqlalchemy.exc import IntegrityError

from blocks.approvals.anchor import check_anchored_head, hold_anchored_head, read_anchored_head
from blocks.approvals.chain import (
    RowState,
    find_first_fault,
    make_entry,
    record_from_entry,
    record_to_json,
    row_digest,
)
from blocks.common.errors import Corrupt, Rejected
from blocks.common.trust import ChainTrust
from blocks.database.common import to_utc
from blocks.database.engine import Database, lock_writers
from blocks.database.readable import UnreadableRow, record_fields
from blocks.database.tables import CHAIN_ENTRIES, SEALED_TABLES
from blocks.records.approvals import ChainEntry, ChainEntryKind, RowSeal
from runtime.keys import Signer

_REMEDY = "restore the database from a backup, and see python -m ratchet audit verify"


@dataclass
class _Verified:
    """The links that this process has verified, and the digests that they seal: by table and key, in their order."""

    links: list[ChainEntry] = field(default_factory=list)
    seals: dict[str, dict[str, str]] = field(default_factory=lambda: {table.name: {} for table in SEALED_TABLES})
    lock: Lock = field(default_factory=Lock)


_VERIFIED: dict[tuple[object, ...], _Verified] = {}
"""By the database's URL and the trusted keys."""


class SqlChain:
    """The chain's links in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def link_at(self, number: int) -> ChainEntry | None:
        """Return the link with that number, or None."""
        query = select(CHAIN_ENTRIES).where(CHAIN_ENTRIES.c.number == number)
        return next(iter(self._database.records(ChainEntry, query)), None)

    def links(self, since: int | None = None) -> tuple[ChainEntry, ...]:
        """Return the links from that number on, by default all rows whatever their number."""
        query = select(CHAIN_ENTRIES).order_by(CHAIN_ENTRIES.c.number)
        return self._database.records(
            ChainEntry, query if since is None else query.where(CHAIN_ENTRIES.c.number >= since)
        )

    def append(
        self,
        kind: ChainEntryKind,
        request_id: str,
        bodies: Callable[[Connection], Sequence[str]],
        signer: Signer | None,
    ) -> list[ChainEntry]:
        """Add the next links, all of them or none, and return them. A lock admits one process at a time."""
        with hold_anchored_head(signer.head if signer else None, self.link_at) as note:

            def add(connection: Connection) -> list[ChainEntry]:
                lock_writers(connection)
                links: list[ChainEntry] = []
                for body in bodies(connection):
                    previous = links[-1] if links else _last_link(connection)
                    links.append(make_entry(previous, kind, request_id, body, signer))
                if links:
                    note(links[-1])
                    connection.execute(insert(CHAIN_ENTRIES), [asdict(link) for link in links])
                return links

            return self._database.write(add)


def _last_link(connection: Connection) -> ChainEntry | None:
    newest = select(CHAIN_ENTRIES).order_by(CHAIN_ENTRIES.c.number.desc()).limit(1)
    row = connection.execute(newest).mappings().first()
    return ChainEntry(**record_fields(row, newest)) if row else None


class SealedRows:
    """The rows of the tables that decide, sealed when they are added and verified when they are read."""

    def __init__(self, database: Database, trust: ChainTrust) -> None:
        self._database, self._trust, self._chain = database, trust, SqlChain(database)

    def add(self, table: Table, values: Mapping[str, Any]) -> None:
        """Insert a row and its seal, unless one with its key exists.

        Raises:
            Rejected: this machine has no key of records; or the ledger holds rows of a release without seals.
            Corrupt: the chain was changed.
        """
        fields = {name: to_utc(each) if isinstance(each, datetime) else each for name, each in values.items()}
        key = row_key(table, fields)
        if key in self._verified().seals[table.name]:
            return  # the caller reads the row
        seal = RowSeal(table.name, key, row_digest(fields))

        def insert_row(connection: Connection) -> list[str]:
            _refuse_older_rows(connection)
            connection.execute(insert(table), fields)
            return [record_to_json(seal)]

        try:
            self._chain.append("record", "", insert_row, self._trust.signer())
        except IntegrityError:
            return  # another writer was first; the caller reads its row

    def find(self, table: Table, **equal: Any) -> tuple[dict[str, Any], ...]:
        """Return the rows with these values in these columns of the key, in the order in which they were added.

        Raises:
            Corrupt: a row was added past this program, changed or removed, or the chain was changed; it is named.
            Rejected: no key of records is trusted.
        """
        while True:
            number = len(self._verified().links)
            rows = self._database.find(table, **equal)
            verified = self._verified()
            if len(verified.links) == number:
                return _checked(table, equal, rows, verified.seals[table.name])

    def adopt(self, adopted_by: str, reason: str) -> int:
        """Seal the rows that an earlier release has added, and return how many. A ledger is adopted once.

        Raises:
            Rejected: rows of the ledger are sealed already.
        """
        if any(self._verified().seals.values()):
            raise Rejected(f"ledger: its rows are sealed already; a row without a seal was not added by us; {_REMEDY}")
        seals = [
            RowSeal(table.name, row_key(table, fields), row_digest(fields), adopted_by, reason)
            for table in SEALED_TABLES
            for fields in self._database.find(table)
        ]

        def unless_sealed(connection: Connection) -> list[str]:
            return [] if _any_sealed(connection) else [record_to_json(seal) for seal in seals]

        return len(self._chain.append("record", "", unless_sealed, self._trust.signer()))

    def _verified(self) -> _Verified:
        """Return all links after the new ones were verified."""
        keys = self._trust.keys
        if not keys["records"]:
            raise Rejected(
                "ledger: no key is trusted whose rows count. Set signing.trusted_record_keys to the public key that "
                "python -m ratchet audit key --purpose records prints."
            )
        trusted = ((purpose, keyring.lines) for purpose, keyring in sorted(keys.items()))
        verified = _VERIFIED.setdefault((self._database.address, *trusted), _Verified())
        with verified.lock:
            heads = list(map(read_anchored_head, self._trust.heads))  # before the links: another process may add one
            last = verified.links[-1] if verified.links else None
            links = self._chain.links(last.number if last else None)
            if last and (not links or links[0] != last):
                raise Corrupt(f"ledger: entry {last.number} was removed or exchanged; {_REMEDY}")
            new = links[1:] if last else links
            if fault := find_first_fault(new, keys, after=last):
                raise Corrupt(f"ledger: entry {fault.number}: {fault.problem}; {_REMEDY}")
            for link in new:
                record = record_from_entry(link)
                if isinstance(record, RowSeal):
                    verified.seals.setdefault(record.table, {}).setdefault(record.key, record.digest)
            verified.links.extend(new)
            for head in heads:
                check_anchored_head(head, lambda n: next(iter(verified.links[n - 1 : n]), None))
            return verified


def row_key(table: Table, fields: Mapping[str, Any]) -> str:
    """Return the key of a row: the columns that identify it, as a JSON list."""
    values = [fields[name] for name in SEALED_TABLES[table]]
    return json.dumps(values, separators=(",", ":"), ensure_ascii=False, default=ascii)


def row_states(database: Database) -> dict[tuple[str, str], RowState]:
    """Return what is stored in the tables that decide, by table and key; nothing is verified."""
    states: dict[tuple[str, str], RowState] = {}
    for table in SEALED_TABLES:
        for row in database.all_rows(select(table).order_by(table.c.sequence)):
            key = table.name, row_key(table, row.values if isinstance(row, UnreadableRow) else row)
            if key in states:
                states[key] = RowState("", f"table {key[0]}: the row {key[1]} is there twice")
            else:
                states[key] = RowState("", str(row)) if isinstance(row, UnreadableRow) else RowState(row_digest(row))
    return states


def _checked(
    table: Table, equal: Mapping[str, Any], rows: Sequence[dict[str, Any]], seals: Mapping[str, str]
) -> tuple[dict[str, Any], ...]:
    """Return the rows in the order of their seals. Raises Corrupt if they are not exactly the sealed ones."""
    by_key, columns, found = dict[str, dict[str, Any]](), SEALED_TABLES[table], []
    for row in rows:
        if by_key.setdefault(row_key(table, row), row) is not row:
            raise Corrupt(f"ledger: table {table.name}: the row {row_key(table, row)} is there twice; {_REMEDY}")
    for key, digest in seals.items():
        sealed_values = dict(zip(columns, json.loads(key), strict=True)) if equal else {}
        if any(sealed_values[name] != value for name, value in equal.items()):
            continue
        if (stored := by_key.pop(key, None)) is None:
            raise Corrupt(f"ledger: table {table.name}: the row {key} was removed, or its key was changed; {_REMEDY}")
        if row_digest(stored) != digest:
            raise Corrupt(f"ledger: table {table.name}: the row {key} was changed after it was added; {_REMEDY}")
        found.append(stored)
    for key in by_key:
        raise Corrupt(
            f"ledger: table {table.name}: no entry of the chain seals the row {key}: it was added past this program "
            f"({_REMEDY}), or by a release without seals (then run once: python -m ratchet audit adopt)."
        )
    return tuple(found)


def _any_sealed(connection: Connection) -> bool:
    sealed = select(CHAIN_ENTRIES.c.number).where(CHAIN_ENTRIES.c.kind == "record").limit(1)
    return connection.execute(sealed).first() is not None


def _refuse_older_rows(connection: Connection) -> None:
    """Refuse the first seal of a ledger while it has rows without one: nobody could tell later who added them."""
    if _any_sealed(connection):
        return
    for table in SEALED_TABLES:
        if connection.execute(select(table.c.sequence).limit(1)).first() is not None:
            raise Rejected(
                f"ledger: table {table.name} has rows of a release without seals. Check them, and run once: "
                "python -m ratchet audit adopt."
            )
