"""Migrations of the ledger: an older ledger is upgraded with all its rows when first opened; a newer one is refused."""

import sqlite3
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Boolean, Connection, text
from sqlalchemy.exc import DBAPIError

from blocks.approvals.chain import TrustedKeys, find_first_fault
from blocks.approvals.rows import SealedRows, row_states
from blocks.common.errors import Corrupt, Rejected
from blocks.common.trust import ChainTrust
from blocks.database import migrations
from blocks.database.ledger import SqlLedger
from blocks.database.migrations import HEAD, VERSION_TABLE
from blocks.database.tables import METADATA, SEALED_TABLES
from blocks.inbox.base import InboxNote
from ratchet.commands.audit import first_fault, read_ledger
from runtime.keys import Keyring, Signer
from tests.fixtures.alert_records import NOW, RAISED
from tests.fixtures.deployments import COMPARISON, DEPLOYMENT
from tests.fixtures.ledgers import again, database, postgres
from tests.fixtures.signing_keys import RECORDS
from tests.processes import in_processes

__all__ = ["database", "postgres"]  # fixtures

FIRST = "0001"
LATER_TABLES = ("ratchet_comparisons",)
"""The tables that later revisions have added."""
LATER_COLUMNS = ("order_id", "requester_authenticated", "seal")
"""The columns that later revisions have added to tables of the first one."""
ROWS = Path(__file__).with_name("ledger_at_first_revision.sql")
"""A row or more of each table, as the first revision has them."""
SIGNED_BY = Signer(Ed25519PrivateKey.from_private_bytes(b"k" * 32))


@pytest.fixture
def older(request: pytest.FixtureRequest, database: SqlLedger) -> SqlLedger:
    """A ledger at the first revision."""
    past_the_program(database, lambda connection: command.upgrade(revisions(connection), FIRST))
    url = database.url.get_secret_value()
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
            connection.executescript(ROWS.read_text())
        return database
    server, binaries = request.getfixturevalue("postgres")
    where = ["-h", "127.0.0.1", "-p", server.rpartition(":")[2], "-U", "ratchet", "-d", url.rpartition("/")[2]]
    command_line = [str(binaries / "psql"), *where, "-q", "-v", "ON_ERROR_STOP=1", "-f", str(ROWS)]
    subprocess.run(command_line, check=True, timeout=60)
    return database


def revisions(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.attributes["connection"] = connection
    return config


def everything(connection: Connection) -> dict[str, list[tuple[object, ...]]]:
    """Return all rows of the tables of the first revision as the database stores them, with its columns."""
    names = [name for name in METADATA.tables if name not in (VERSION_TABLE, *LATER_TABLES)]
    rows = {name: connection.execute(text(f"SELECT * FROM {name}")).mappings() for name in names}
    return {
        name: sorted(tuple(value for column, value in row.items() if column not in LATER_COLUMNS) for row in found)
        for name, found in rows.items()
    }


def past_the_program(ledger: SqlLedger, work: Callable[[Connection], Any]) -> Any:
    """Open the database directly: nothing is upgraded."""
    database = SqlLedger(url=ledger.url).database()
    return database._run(lambda: database._transaction(work, writes=True))


def raw(ledger: SqlLedger) -> dict[str, list[tuple[object, ...]]]:
    return past_the_program(ledger, everything)


def revision(ledger: SqlLedger) -> str:
    query = text(f"SELECT version_num FROM {VERSION_TABLE}")
    return ledger.database().read(lambda connection: str(connection.execute(query).scalar_one()))


def differences(connection: Connection) -> list[object]:
    options = {"version_table": VERSION_TABLE, "compare_type": True}
    return compare_metadata(MigrationContext.configure(connection, opts=options), METADATA)


def test_a_new_ledger_has_the_tables_that_the_program_queries(database: SqlLedger) -> None:
    assert database.database().read(differences) == []
    assert revision(database) == HEAD


def test_the_revision_of_this_program_is_the_last_that_it_ships() -> None:
    assert ScriptDirectory.from_config(revisions()).get_current_head() == HEAD


def test_every_yes_or_no_is_checked_when_it_is_read() -> None:
    bare = [str(each) for table in METADATA.sorted_tables for each in table.columns if type(each.type) is Boolean]
    assert bare == [], "give the column the type Flag: SQLite stores any number in a Boolean"


def test_a_ledger_of_an_earlier_revision_is_upgraded_with_all_its_rows(older: SqlLedger) -> None:
    before = raw(older)
    assert all(before.values()), "the fixture has a row of each table"
    approvals, effects, inbox, outbox = older.approvals(), older.effects(), older.inbox(), older.outbox()
    assert revision(older) == HEAD
    assert raw(older) == before
    assert older.database().read(differences) == []
    decision = approvals.final_decision("churn-7")
    assert decision is not None and (decision.by, decision.reason) == ("grace", "it's fine")
    requests = {"churn-7": approvals.get_request("churn-7")}
    assert requests["churn-7"].approvers == ("grace", "linus")
    keys: TrustedKeys = {"decisions": Keyring([SIGNED_BY.public_key_line])}
    assert find_first_fault(approvals.chain_entries(), keys, requests=requests) is None
    effect = effects.effect("deploy:churn-7")
    assert effect is not None and (effect.detail, effect.outcome) == ("golden", "serves")
    assert [each.id for each in effects.deployments("churn", "production")] == ["dep-1"]
    assert inbox.delivery_status("github:a").state == "started" and inbox.report_text("run-1") == "# better"
    assert inbox.acquire_lease("git dispatcher", "two", NOW.replace(year=2025), NOW) is None
    assert outbox.signals("churn/local/drift")[0].links == {"run": "http://here/ä"}
    assert [(message.id, attempts[0].error) for message, attempts in outbox.undelivered()] == [("m1", "down")]


def test_an_upgraded_ledger_takes_new_rows_and_still_refuses_to_lose_old_ones(older: SqlLedger) -> None:
    older.effects().record_deployment(replace(DEPLOYMENT, id="dep-2"))
    older.effects().record_comparison(COMPARISON)
    assert older.effects().comparisons("churn", "production") == (COMPARISON,)
    older.outbox().record_signal(replace(RAISED, key="k2"))
    older.inbox().add_note(InboxNote("a", "b", "c", NOW))
    assert [each.id for each in older.effects().deployments("churn", "production")] == ["dep-2", "dep-1"]
    for table in ("ratchet_effects", "ratchet_decision_chain", "ratchet_delivery_reports", *LATER_TABLES):
        with pytest.raises((DBAPIError, Rejected), match="only added to"):
            older.database().write(lambda connection, name=table: connection.execute(text(f"DELETE FROM {name}")))


def trust_of(signer: Signer) -> ChainTrust:
    """Return what trusts the decisions of the older ledger, and the rows that this signer seals."""
    keys: TrustedKeys = {
        "decisions": Keyring([SIGNED_BY.public_key_line]), "records": Keyring([RECORDS.public_key_line])
    }  # fmt: skip
    return ChainTrust(keys, (), lambda: signer)


def test_rows_of_a_release_without_seals_count_once_a_person_has_adopted_them(older: SqlLedger) -> None:
    trust = trust_of(RECORDS)
    approvals, effects, sealed = older.approvals(trust), older.effects(trust), SealedRows(older.database(), trust)
    for read in (
        lambda: effects.deployments("churn", "production"),
        lambda: effects.effect("deploy:churn-7"),
        approvals.open_requests,
    ):
        with pytest.raises(Corrupt, match="no entry of the chain seals the row.*audit adopt"):
            read()
    with pytest.raises(Rejected, match="rows of a release without seals.*audit adopt"):
        effects.record_comparison(COMPARISON)
    before = raw(older)
    count = sealed.adopt("grace", "compared with the backup")
    assert count == sum(len(before[table.name]) for table in SEALED_TABLES if table.name in before)
    assert [each.id for each in effects.deployments("churn", "production")] == ["dep-1"]
    assert approvals.get_request("churn-7").approvers == ("grace", "linus")
    effects.record_comparison(COMPARISON)
    record = read_ledger(older.approvals())._replace(rows=row_states(older.database()))
    assert first_fault(record, trust.keys, []) is None
    assert '"adopted_by":"grace"' in record.links[-2].body
    older.effects().record_deployment(replace(DEPLOYMENT, id="dep-2"))  # past the seals
    with pytest.raises(Rejected, match="sealed already"):
        sealed.adopt("eve", "trust me")
    with pytest.raises(Corrupt, match="dep-2"):
        effects.deployments("churn", "production")


def test_a_ledger_of_a_newer_release_is_refused_and_left_alone(database: SqlLedger) -> None:
    database.effects().intend("k", "d", NOW)
    newer = text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    database.database().write(lambda connection: connection.execute(newer))
    place = database.url.get_secret_value().rpartition("/")[2]
    for _ in range(2):
        with pytest.raises(Rejected, match=rf"{place}.*revision 9999.*knows {HEAD}.*run that release, or restore"):
            again(database).effects().intend("other", "d", NOW)
    assert [row[1] for row in raw(database)["ratchet_effects"]] == ["k"]


def test_a_ledger_from_before_the_first_revision_is_refused_and_left_alone(database: SqlLedger) -> None:
    old = text("CREATE TABLE ratchet_effects (key TEXT)")
    past_the_program(database, lambda connection: connection.execute(old))
    for _ in range(2):
        with pytest.raises(Rejected, match=r"no schema revision.*Move the ledger away"):
            again(database).effects().intend("k", "d", NOW)
    count = text("SELECT count(*) FROM ratchet_effects")
    assert past_the_program(database, lambda connection: connection.execute(count).scalar_one()) == 0


def test_an_upgrade_that_fails_halfway_leaves_the_ledger_as_it_was(older: SqlLedger) -> None:
    in_the_way = "ratchet_deployments_model"  # the name that the last revision creates
    past_the_program(older, lambda connection: connection.execute(text(f"CREATE TABLE {in_the_way} (x INTEGER)")))
    before = raw(older)
    with pytest.raises(Rejected, match="already"):
        older.effects().effect("k")
    query = text(f"SELECT version_num FROM {VERSION_TABLE}")
    assert past_the_program(older, lambda connection: connection.execute(query).scalar_one()) == FIRST
    past_the_program(older, lambda connection: connection.execute(text(f"DROP TABLE {in_the_way}")))
    assert older.effects().effect("deploy:churn-7") is not None
    assert raw(older) == before


@pytest.mark.slow  # each process imports its modules again
def test_eight_processes_may_upgrade_a_ledger_at_once(older: SqlLedger) -> None:
    url = older.url
    outcomes = in_processes(8, lambda n: SqlLedger(url=url).effects().intend(f"k{n}", "d", NOW).state)
    assert outcomes == ["intent"] * 8
    assert revision(older) == HEAD
    assert older.effects().effect("deploy:churn-7") is not None


def test_eight_threads_may_upgrade_a_ledger_at_once(older: SqlLedger) -> None:
    url = older.url
    with ThreadPoolExecutor(8) as pool:
        outcomes = pool.map(lambda n: SqlLedger(url=url).effects().intend(f"k{n}", "d", NOW).state, range(8))
    assert list(outcomes) == ["intent"] * 8
    assert revision(older) == HEAD
