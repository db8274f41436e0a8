"""Edits of the ledger past the program: whatever row or column that decides is edited, it is refused and named.

The database's owner can drop the triggers and constraints of a table. Each edit is made to a copy of one ledger, which
another process then reads: `audit verify`, and the code that trusts the row.
"""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Double, Integer, Table, insert

from blocks.approvals import rows
from blocks.approvals.chain import CHAIN_KINDS, ChainRecord, entry_hash, make_entry, record_to_json
from blocks.approvals.rows import row_states
from blocks.common.errors import Corrupt, Rejected
from blocks.common.trust import SigningSettings
from blocks.database.ledger import SqlLedger
from blocks.database.tables import CHAIN_ENTRIES, DEPLOYMENTS, REQUESTS, SEALED_TABLES, Flag, Json, UtcTimestamp
from blocks.endpoints.base import GoldenExample
from blocks.environment_settings import TRUST_VARIABLE
from blocks.records.actions import ActionOrder
from blocks.records.approvals import ChainEntry, Decision, ErasureRecord, RefusedAttempt, Waiver
from ratchet.commands.audit import first_fault, read_ledger
from tasks.approval.rules.evidence import parse_evidence
from tasks.release.deployment import golden_json, recorded_golden
from tasks.shared import trust
from tasks.shared.champion import champion_version
from tasks.shared.rules.refusal import Refusal
from tasks.shared.trust import signed_version_facts, verified_chain
from tests.fakes.environment import NOW, World, approve, release
from tests.fixtures.approval_requests import request_over
from tests.fixtures.command_line import ratchet
from tests.fixtures.deployments import COMPARISON
from tests.fixtures.ledgers import database, postgres
from tests.fixtures.trust_files import trust_local

__all__ = ["database", "postgres"]  # fixtures

GOLDEN = GoldenExample('{"instances": [1]}', "[0.75]")
WAIVER = Waiver("price", "local", ("auc",), "max@example.com", "why", "terminal", NOW, NOW)


def filled(env: World) -> World:
    """Record two deployments with all that belongs to them, and a request that waits."""
    effects = env.effects()
    for version in ("1", "2"):
        release(env, version, f"digest {version}")
        effects.intend(f"deploy:price-{version}", golden_json(GOLDEN), NOW)
        effects.finish(f"deploy:price-{version}", "serves", NOW)
        effects.record_comparison(
            replace(COMPARISON, model="price", environment="local", number=int(version), version=version)
        )
    env.approvals().record_waiver(WAIVER, env.signing.signer("decisions"))
    waiting = approve(env, "2", "digest 2")
    env.approvals().add_request(replace(waiting, id="waiting", authors=("nia@example.com",), approvals=2))
    return env


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ledger")
    filled(world(folder))
    with sqlite3.connect(folder / "ledger.db") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return folder


def world(folder: Path, url: str = "") -> World:
    env = World.at(folder)
    env._adapters["ledger"] = SqlLedger(url=url or f"sqlite:///{folder}/ledger.db")
    return env


@dataclass
class Copies:
    """Copies of the ledger, each edited once."""

    original: Path
    folder: Path
    patch: pytest.MonkeyPatch
    count: int = 0

    def edited(self, *statements: str) -> World:
        """Return an environment whose ledger is an edited copy, and set the variables by which the audit finds it."""
        self.count += 1
        folder = self.folder / str(self.count) / "state"
        shutil.copytree(self.original, folder)
        with sqlite3.connect(folder / "ledger.db") as connection:
            for table in (*SEALED_TABLES, CHAIN_ENTRIES) if statements else ():  # without triggers and constraints
                connection.execute(f"CREATE TABLE free AS SELECT * FROM {table}")
                connection.execute(f"DROP TABLE {table}")
                connection.execute(f"ALTER TABLE free RENAME TO {table}")
            for statement in statements:
                connection.execute(statement)
        connection.close()
        env = world(folder)
        trust_local(folder.parent, self.patch, env.signing)
        return env


@pytest.fixture
def copies(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Copies]:
    yield Copies(original, tmp_path, monkeypatch)


def all_that_is_trusted(env: World) -> None:
    """Read whatever a rule of approval, evaluation, deployment or rollback trusts in the ledger."""
    verified_chain(env)
    env.approvals().open_requests()
    champion_version(env, "price")
    for version in ("1", "2"):
        recorded_golden(env.effects(), f"price-{version}")
        signed_version_facts(env, "price", version)
    env.effects().unfinished("deploy:")
    env.effects().comparisons("price", "local")


def refused(env: World, what: str, named: str = "") -> None:
    """Assert that the audit names the row with exit code 1, and that what trusts it is refused."""
    said = ratchet("audit", "verify")
    assert said.exit_code == 1 and "INVALID" in said.stdout, f"{what}: {said.stdout}{said.stderr}"
    assert named in said.stdout, f"{what}: {said.stdout}"
    with pytest.raises((Corrupt, Refusal)):
        all_that_is_trusted(env)
        pytest.fail(f"{what} was trusted")


def another_value(column: Column[Any]) -> str:
    """Return another value of the column's type, as an attacker would choose it."""
    values = {Flag: "1 - {}", UtcTimestamp: "'2099-01-01T00:00:00.000000+00:00'", Json: """'["eve"]'""", Double: "0.5",
              Integer: "{} + 70"}  # fmt: skip
    chosen = next((value for kind, value in values.items() if isinstance(column.type, kind)), "{} || 'x'")
    return chosen.format(f'"{column.name}"')


GARBAGE = {
    "a BLOB": "x'00ff'", "NULL": "NULL", "no UTF-8": "CAST(x'61ff' AS TEXT)", "no JSON": "'{'", "a number": "1e999",
    "another number": "9223372036854775807", "a deep list": f"'{'[' * 9_000}'", "a surrogate": """'["\\ud800"]'""",
    "a megabyte": "printf('%.*c', 1000000, 'x')", "a naive time": "'2099-01-01T00:00:00.000000'",
}  # fmt: skip
EVERY = [(table, column) for table in (*SEALED_TABLES, CHAIN_ENTRIES) for column in table.columns]
DECIDING = [(table, column) for table, column in EVERY if column.name != "sequence"]
"""The place of a row is no value that decides: rows count in the order of their links."""


@pytest.mark.parametrize(
    ("table", "column"), [pytest.param(*each, id=f"{each[0]}-{each[1].name}") for each in DECIDING]
)
def test_an_edited_column_is_named_and_not_trusted(copies: Copies, table: Table, column: Column[Any]) -> None:
    order = "number" if table is CHAIN_ENTRIES else "sequence"
    last = f"(SELECT max({order}) FROM {table})"
    env = copies.edited(f'UPDATE {table} SET "{column.name}" = {another_value(column)} WHERE {order} = {last}')
    refused(env, f"{table}.{column.name}")


@pytest.mark.slow  # seventy commands
@pytest.mark.parametrize("what", GARBAGE)
def test_whatever_is_put_into_a_column_ends_in_no_traceback(copies: Copies, what: str) -> None:
    chosen = {type(column.type): (table, column) for table, column in DECIDING}
    bodies = [(CHAIN_ENTRIES, CHAIN_ENTRIES.c.number), (CHAIN_ENTRIES, CHAIN_ENTRIES.c.body)]
    for table, column in (*chosen.values(), *bodies):
        order = "number" if table is CHAIN_ENTRIES else "sequence"
        last = f"(SELECT max({order}) FROM {table})"
        env = copies.edited(f'UPDATE {table} SET "{column.name}" = {GARBAGE[what]} WHERE {order} = {last}')
        refused(env, f"{what} in {table}.{column.name}")


@pytest.mark.parametrize("table", SEALED_TABLES, ids=str)
def test_a_row_that_is_deleted_doubled_or_replayed_is_named(copies: Copies, table: Table) -> None:
    names = ", ".join(f'"{column.name}"' for column in table.columns if column.name not in {"sequence", "id", "key"})
    new = "id" if "id" in table.columns else "key" if "key" in table.columns else "number"
    others = names.replace('"number", ', "")
    value = "number + 70" if new == "number" else f"'replayed ' || \"{new}\""
    first = f"(SELECT min(sequence) FROM {table})"
    everything = ", ".join(f'"{column.name}"' for column in table.columns if column.name != "sequence")
    edits = {
        "the same row twice": f"INSERT INTO {table} (sequence, {everything}) SELECT 99, {everything} FROM {table} "
        f"WHERE sequence = {first}",
        "the first row deleted": f"DELETE FROM {table} WHERE sequence = {first}",
        "the last row deleted": f"DELETE FROM {table} WHERE sequence = (SELECT max(sequence) FROM {table})",
        "all rows deleted": f"DELETE FROM {table}",
        "replayed under another key": f'INSERT INTO {table} (sequence, "{new}", {others}) SELECT 99, {value}, {others} '
        f"FROM {table} WHERE sequence = {first}",
    }
    for what, statement in edits.items():
        refused(copies.edited(statement), what, table.name)


def test_versions_of_two_deployments_cannot_be_swapped(copies: Copies) -> None:
    swap = "UPDATE ratchet_deployments SET version = CASE version WHEN '1' THEN '2' ELSE '1' END"
    refused(copies.edited(swap), "swapped versions", "ratchet_deployments")


def test_the_order_of_deployments_is_that_of_the_chain(copies: Copies) -> None:
    env = copies.edited("UPDATE ratchet_deployments SET sequence = 10 - sequence")
    assert champion_version(env, "price") == "2"


def test_a_sound_ledger_is_trusted(copies: Copies) -> None:
    env = copies.edited()
    said = ratchet("audit", "verify")
    assert said.exit_code == 0 and "1 waivers" in said.stdout, said.stdout
    all_that_is_trusted(env)


def test_rows_cut_off_with_their_links_are_missed_by_the_anchored_head(copies: Copies) -> None:
    number = "(SELECT max(number) FROM ratchet_decision_chain)"
    env = copies.edited(
        "DELETE FROM ratchet_requests WHERE id = 'waiting'",
        f"DELETE FROM ratchet_decision_chain WHERE number = {number}",
    )
    refused(env, "cut off", "anchored head")
    with pytest.raises(Corrupt, match="Rows were cut off"):
        release(env, "3", "digest 3")


def forged(env: World, kind: Any, body: str, request_id: str = "") -> None:
    """Add a link that the workers' key has signed."""
    links = env.approvals().chain_entries()
    link = make_entry(links[-1], kind, request_id, body, env.signing.signer("records"))
    ledger = env.ledger()
    assert isinstance(ledger, SqlLedger)
    ledger.database().write(lambda connection: connection.execute(insert(CHAIN_ENTRIES), asdict(link)))


RECORDS: dict[str, ChainRecord] = {
    "decision": Decision("price-1", "d", True, "eve", "", "terminal", NOW),
    "waiver": WAIVER,
    "erasure": ErasureRecord("price", "local", "done", "eve", "", "terminal", NOW),
    "action": ActionOrder("rollback", "local", "price", "1", (), "eve", "", "terminal", NOW, NOW + timedelta(days=1)),
    "refusal": RefusedAttempt("price-1", "decide", "eve", "terminal", "", NOW),
}


@pytest.mark.parametrize("kind", [kind for kind, each in CHAIN_KINDS.items() if each.purposes == ("decisions",)])
def test_the_key_of_the_workers_signs_no_decision_of_people(copies: Copies, kind: str) -> None:
    env, record = copies.edited(), RECORDS[kind]
    forged(env, kind, record_to_json(record), getattr(record, "request_id", ""))
    refused(env, kind, "no pinned key of decisions has signed it")


def test_the_key_of_decisions_seals_no_rows(copies: Copies) -> None:
    env = copies.edited()
    settings = env.signing.model_copy(update={"records_key": env.signing.decisions_key, "records_head_file": ""})
    env.signing = SigningSettings(**settings.model_dump())
    with pytest.raises(Corrupt, match="no pinned key of records"):
        release(env, "3", "digest 3")


def test_a_key_may_not_be_trusted_for_both_purposes(tmp_path: Path) -> None:
    signing = world(tmp_path).signing
    with pytest.raises(ValueError, match="Use two keys"):
        SigningSettings(**{**signing.model_dump(), "trusted_record_keys": signing.trusted_decision_keys})


def test_rows_are_not_trusted_while_no_key_of_records_is(copies: Copies) -> None:
    env = copies.edited()
    env.signing = env.signing.model_copy(update={"trusted_record_keys": ()})
    with pytest.raises(Rejected, match="trusted_record_keys"):
        champion_version(env, "price")


EDITS: dict[str, Callable[[Table], str]] = {
    "edited": lambda table: f"UPDATE {table} SET model = 'eve'",
    "deleted": lambda table: f"DELETE FROM {table}",
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("table", [REQUESTS, DEPLOYMENTS], ids=str)
def test_edits_are_found_in_either_database(database: SqlLedger, tmp_path: Path, table: Table, edit: str) -> None:
    env = filled(world(tmp_path, database.url.get_secret_value()))
    sqlite = database.url.get_secret_value().startswith("sqlite")
    triggers = [f"{table}_UPDATE", f"{table}_DELETE"] if sqlite else [f"{table}_guard ON {table}"]
    for statement in (*[f"DROP TRIGGER {name}" for name in triggers], EDITS[edit](table)):
        database.database().write(lambda connection, it=statement: connection.exec_driver_sql(it))
    record = read_ledger(database.approvals())._replace(rows=row_states(database.database()))
    fault = first_fault(record, env.signing.chain_trust().keys, [])
    assert fault is not None and str(table) in fault.problem
    with pytest.raises(Corrupt, match=str(table)):
        all_that_is_trusted(env)


def test_a_link_with_a_mended_hash_is_not_signed(copies: Copies) -> None:
    env = copies.edited()
    link: ChainEntry = env.approvals().chain_entries()[-1]
    body = link.body.replace('"digest":"', '"digest":"0')
    mended = entry_hash(link.number, link.kind, link.request_id, body, link.previous, link.key_id)
    env = copies.edited(
        f"UPDATE ratchet_decision_chain SET body = '{body}', hash = '{mended}' WHERE number = {link.number}"
    )
    refused(env, "mended", "pinned key of records")


def add_link(env: World) -> None:
    env.approvals().record_waiver(WAIVER, env.signing.signer("decisions"))


def add_row(env: World) -> None:
    env.approvals().add_request(replace(env.approvals().get_request("waiting"), id="meanwhile"))


READERS: dict[str, tuple[Any, str, Callable[[World], object], Callable[[World], object]]] = {
    "a row": (rows, "find_first_fault", add_link, lambda env: env.effects().deployments("price", "local")),
    "the decisions": (trust, "find_first_fault", add_link, verified_chain),
    "the audit, a link": (rows, "row_states", add_link, lambda env: ratchet("audit", "verify")),
    "the audit, a row": (rows, "row_states", add_row, lambda env: ratchet("audit", "verify")),
}
"""What reads, the function in the middle of it, and what another process commits then."""


@pytest.mark.parametrize("reader", READERS)
def test_what_another_process_adds_meanwhile_is_no_damage(
    copies: Copies, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    env, (module, name, add, read) = copies.edited(), READERS[reader]
    interrupted, added = getattr(module, name), list[object]()

    def interrupting(*given: Any, **more: Any) -> Any:
        found = interrupted(*given, **more)
        if not added:
            added.append(add)
            add(env)
        return found

    monkeypatch.setattr(module, name, interrupting)
    said = read(env)
    assert added and getattr(said, "exit_code", 0) == 0, said


def test_rows_sealed_by_the_key_of_the_workers_approve_nothing(copies: Copies) -> None:
    env = copies.edited()
    shown = replace(parse_evidence(env.approvals().get_request("price-2").evidence), version="3", commit="e" * 40)
    request = env.approvals().add_request(request_over(shown))
    line = env.effects().deployments("price", "local")[0]
    env.effects().record_deployment(replace(line, id="mine", version="3", request_id=request.id))
    with pytest.raises(Refusal, match="no approved evidence of that version"):
        signed_version_facts(env, "price", "3")
    elsewhere = replace(env.approvals().get_request("price-2"), id="elsewhere", environment="production")
    env.approvals().add_request(elsewhere)
    signer = env.signing.signer("decisions")
    env.approvals().record_decision(
        Decision("elsewhere", elsewhere.digest, True, "max@example.com", "", "page", NOW), signer
    )
    env.effects().record_deployment(replace(line, id="newest", version="2", request_id="elsewhere"))
    with pytest.raises(Refusal, match="no approved evidence of that version"):
        signed_version_facts(env, "price", "2")


def test_an_exported_record_is_verified_on_a_machine_without_a_trust_file(
    copies: Copies, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    env, file = copies.edited(), tmp_path / "record.jsonl"
    file.write_text(ratchet("audit", "export").stdout)
    monkeypatch.setenv(TRUST_VARIABLE, str(tmp_path / "nothing"))
    monkeypatch.setenv("RATCHET_STATE", str(tmp_path / "nothing"))
    given = ["audit", "verify", "--file", str(file), "--key", *env.signing.trusted_decision_keys]
    said = ratchet(*given, "--record-key", *env.signing.trusted_record_keys)
    assert said.exit_code == 0 and said.stdout.startswith("valid: "), said.stdout + said.stderr
    without = ratchet(*given)
    assert without.exit_code == 1 and "no pinned key of records has signed it" in without.stdout
