"""Sources that change databases, reach places that are not theirs, or show passwords: each is refused."""

import json
import os
import re
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from types import SimpleNamespace
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from deltalake import write_deltalake
from prefect.blocks.core import Block
from pyiceberg.catalog.sql import SqlCatalog
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.base import SQLiteDialect

import blocks
from blocks import sources
from blocks.common.errors import NotFound, PortError, Rejected, Unavailable
from blocks.common.source_settings import SourceSettings
from blocks.environment import Environment
from blocks.sources.read_only_sql import check_query
from blocks.sources.secret_addresses import masked, resolve_address
from blocks.tracking.mlflow import MlflowTracking
from tasks.batch.input import open_inference_input
from tasks.ingestion.landing import open_source_rows
from tests.fakes.environment import SPEC, World
from tests.fixtures.postgres_server import running_server, server_binaries
from tests.fixtures.s3_server import s3_with_bucket
from tests.fixtures.sources import ANYWHERE

KINDS = {"id": "key", "age": "number"}
ROWS = pa.table({"id": ["a", "b"], "age": [1.0, 2.0]})
QUERY = "SELECT * FROM people"


def read(source: str, query: str = "", allowed: SourceSettings = ANYWHERE, **more: Any) -> list[Any]:
    with closing(sources.open_source(source, query=query, kinds=KINDS, allowed=allowed, **more)) as opened:
        return opened.read_table().table["id"].to_pylist()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "people.db"
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE people (id, age); INSERT INTO people VALUES ('a', 1), ('b', 2)")
    return path


STATEMENTS = {
    "drop": "DROP TABLE people",
    "delete": "DELETE FROM people",
    "insert": "INSERT INTO people VALUES ('c', 3) RETURNING id, age",
    "create": "CREATE TABLE copy AS SELECT * FROM people",
    "temporary table": "CREATE TEMP TABLE copy AS SELECT * FROM people",
    "pragma": "PRAGMA user_version = 7",
    "pragma as a function": "SELECT name AS id, 1 AS age FROM pragma_table_info('people')",
    "attach": "ATTACH '{folder}/other.db' AS other",
    "vacuum into": "VACUUM INTO '{folder}/copy.db'",
    "a second statement": "SELECT * FROM people; DROP TABLE people",
    "a second statement behind a comment": "SELECT * FROM people -- ; \n; DROP TABLE people",
    "behind a comment": "/* SELECT */ DROP TABLE people",
    "behind WITH": "WITH more AS (SELECT 1) DELETE FROM people RETURNING id, age",
    "behind a bracket": "(DROP TABLE people)",
    "explain": "EXPLAIN SELECT * FROM people",
    "an extension": "SELECT load_extension('{folder}/evil.so') AS id, 1 AS age",
    "a tokenizer": "SELECT fts3_tokenizer('simple', x'0000000000000000') AS id, 1 AS age",
    "begin": "BEGIN EXCLUSIVE",
    "reindex": "REINDEX people",
}


@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=list(STATEMENTS))
@pytest.mark.parametrize("form", ["sqlite:///{0}", "sqlite+pysqlite:///{0}"])
def test_a_statement_that_does_more_than_read_is_refused_by_sqlite(database: Path, form: str, statement: str) -> None:
    before, names = database.read_bytes(), sorted(database.parent.iterdir())
    with pytest.raises(Rejected):
        read(form.format(database), statement.format(folder=database.parent))
    assert database.read_bytes() == before and sorted(database.parent.iterdir()) == names


ADDRESSES = {
    "uri": "sqlite:///file:{0}?uri=true",
    "uri and mode": "sqlite:///file:{0}?mode=rwc&uri=true",
    "upper case": "sqlite:///{0}?URI=true",
    "another file system": "sqlite:///{0}?vfs=unix-none",
    "shared memory": "sqlite:///{0}?cache=shared",
    "another driver": "sqlite+aiosqlite:///{0}",
    "a timeout that is no number": "sqlite:///{0}?timeout=abc",
    "a timeout without an end": "sqlite:///{0}?timeout=inf",
    "in memory": "sqlite://",
    "upwards": "sqlite:///{0}/../people.db",
}


@pytest.mark.parametrize("address", ADDRESSES.values(), ids=list(ADDRESSES))
def test_an_sqlite_address_that_chooses_its_own_mode_is_refused(database: Path, address: str) -> None:
    for query in (QUERY, "DROP TABLE people"):
        with pytest.raises(Rejected):
            read(address.format(database), query)
    assert read(f"sqlite:///{database}?timeout=1", QUERY) == ["a", "b"]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM people;",
        "-- all\nSELECT id, age FROM people /* all */",
        "WITH p AS (SELECT * FROM people) SELECT p.id, max(p.age) AS age FROM p GROUP BY p.id",
        "WITH RECURSIVE n(id, age) AS (SELECT 1, 1 UNION ALL SELECT id + 1, age FROM n WHERE id < 2) SELECT * FROM n",
        'SELECT value AS id, 1 AS age FROM json_each(\'["a", "b"]\')',
        "SELECT id, age, 'update, delete, into' AS note FROM people",
    ],
)
def test_a_query_that_reads_is_read(database: Path, query: str) -> None:
    assert len(read(f"sqlite:///{database}", query)) == 2


@pytest.mark.parametrize("dialect", ["mysql", "mssql", "oracle", "snowflake"])
def test_a_database_without_a_guard_is_queried_only_where_it_is_named_and_by_words_that_read(dialect: str) -> None:
    url = sa.URL.create(dialect)
    with pytest.raises(Rejected, match=r"not a database that can be read here|sources\.schemes"):
        read(f"{dialect}://reader@host/crm", QUERY)
    for written in ("SELECT 1 DROP TABLE people", "SELECT * INTO copy FROM people", "SELECT 1 EXEC xp_cmdshell 'x'",
                    "SELECT 1 /*! DROP TABLE people */", "SELECT '\\' INTO OUTFILE '/tmp/x' -- '", "SELECT LOAD_FILE('/etc/x')"):  # fmt: skip
        with pytest.raises(Rejected):
            check_query(written, url, dialect)
    check_query("SELECT id FROM people WHERE updated_at > 7", url, dialect)


@pytest.mark.parametrize("address", ["duckdb:///people.duckdb", "duckdb://host/people", "duckdb://", "mysql:///people"])
def test_a_database_that_opens_files_by_itself_is_refused_also_where_it_is_named(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.impls, "duckdb", lambda: SQLiteDialect)  # as if its driver were installed
    with pytest.raises(Rejected, match=r"names no server.*Parquet"):
        read(address, QUERY, SourceSettings(roots=("/",), hosts=("*",), schemes=("duckdb", "mysql")))


# PostgreSQL


@pytest.fixture(scope="module")
def postgres() -> Iterator[tuple[str, Path]]:
    if (binaries := server_binaries()) is None:
        pytest.skip("no PostgreSQL server here: neither initdb in PATH nor /usr/lib/postgresql")
    with running_server(binaries) as url:
        yield url, binaries


@pytest.fixture
def crm(postgres: tuple[str, Path], tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A database with the table people: its address for a reader, and for its superuser."""
    url, binaries = postgres
    name = "t" + str(abs(hash(tmp_path)))
    server = ["-h", "127.0.0.1", "-p", url.rpartition(":")[2], "-U", "ratchet"]
    subprocess.run([str(binaries / "createdb"), *server, name], check=True, timeout=60)

    def run(*statements: str) -> None:
        for statement in statements:
            command = [str(binaries / "psql"), *server, "-d", name, "-q", "-v", "ON_ERROR_STOP=1", "-c", statement]
            subprocess.run(command, check=True, timeout=60, capture_output=True)

    run(
        "CREATE TABLE people (id text, age float8)",
        "INSERT INTO people VALUES ('a', 1), ('b', 2)",
        "CREATE SEQUENCE numbers",
        f"CREATE ROLE reader_{name} LOGIN PASSWORD 'x'",
        f"GRANT ALL ON people, numbers TO reader_{name}",
        f"GRANT CREATE ON SCHEMA public TO reader_{name}",
        "CREATE FUNCTION wipe() RETURNS int LANGUAGE plpgsql SECURITY DEFINER AS "
        "$$ BEGIN DELETE FROM people; RETURN 1; END $$",
        "CREATE PROCEDURE wipe_all() LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN COMMIT; DELETE FROM people; END $$",
    )
    yield url.replace("ratchet:secret-in-url@", f"reader_{name}@") + f"/{name}", f"{url}/{name}"
    run(f"DROP OWNED BY reader_{name}", f"DROP ROLE reader_{name}")


POSTGRES_STATEMENTS = [
    "DROP TABLE people",
    "DELETE FROM people RETURNING id, age",
    "WITH gone AS (DELETE FROM people RETURNING *) SELECT * FROM gone",
    "SELECT * INTO copy FROM people",
    "SELECT id, nextval('numbers') AS age FROM people",
    "SELECT id, setval('numbers', 9) AS age FROM people",
    "SELECT id, wipe() AS age FROM people",
    "SELECT set_config('transaction_read_only', 'off', false) AS id, wipe() AS age",
    "SELECT query_to_xml('SET TRANSACTION READ WRITE', true, true, '')::text AS id, wipe() AS age",
    "SELECT query_to_xml('DELETE FROM people RETURNING 1', true, true, '')::text AS id, 1 AS age",
    "SELECT * FROM people FOR UPDATE",
    "SELECT pg_logical_emit_message(false, 'p', 'x')::text AS id, 1 AS age",
    "SELECT PG_NOTIFY('c', 'x')::text AS id, 1 AS age",
    "SELECT pg_export_snapshot() AS id, 1 AS age",
    'SELECT U&"pg\\005fexport_snapshot"() AS id, 1 AS age',
    "SELECT database_to_xml(true, true, '')::text AS id, 1 AS age",
    "SELECT word AS id, 1 AS age FROM ts_stat('SELECT pg_export' || '_snapshot()::tsvector')",
    "CALL wipe_all()",
    "/* /* */ SELECT */ CALL wipe_all()",
    "/* /* */ SELECT */ DROP TABLE people",
    "/* /* */ SELECT */ COMMIT",
    "/* /* */ SELECT */ SET TRANSACTION READ WRITE",
    "/* /* */ SELECT */ SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
    "SELECT 1; COMMIT; DELETE FROM people",
    "COPY people TO PROGRAM 'cat'",
    "VACUUM people",
]


@pytest.mark.slow
def test_a_statement_that_does_more_than_read_is_refused_by_postgresql(crm: tuple[str, str]) -> None:
    reader, _ = crm
    assert read(reader, QUERY) == ["a", "b"]
    for statement in POSTGRES_STATEMENTS:
        with pytest.raises(Rejected):
            pytest.fail(f"{statement} returned {read(reader, statement)}")
        assert read(reader, QUERY) == ["a", "b"], statement
    read(reader, "SELECT lo_create(0)::text AS id, 1 AS age")  # which servers before 16 let a read-only transaction do
    assert read(reader, "SELECT count(*)::text AS id, 1 AS age FROM pg_largeobject_metadata") == ["0"], "rolled back"
    assert read(reader, "SELECT last_value::text AS id, 1 AS age FROM numbers") == ["1"]
    assert read(reader, "SELECT relname::text AS id, 1 AS age FROM pg_class WHERE relname = 'people'") == ["people"]


@pytest.mark.slow
def test_many_rows_of_postgresql_are_read_in_batches(crm: tuple[str, str]) -> None:
    found = read(crm[0], "SELECT n::text AS id, n AS age FROM generate_series(1, 50000) AS n")
    assert (len(found), found[-1]) == (50_000, "50000")


@pytest.mark.slow
def test_a_role_that_can_act_outside_of_a_query_is_refused(crm: tuple[str, str], postgres: tuple[str, Path]) -> None:
    reader, owner = crm
    role, name = reader.partition("//")[2].partition("@")[0], reader.rpartition("/")[2]
    server = ["-h", "127.0.0.1", "-p", postgres[0].rpartition(":")[2], "-U", "ratchet", "-d", name, "-q", "-c"]

    def run(statement: str) -> None:
        subprocess.run([str(postgres[1] / "psql"), *server, statement], check=True, timeout=60, capture_output=True)

    with pytest.raises(Rejected, match=r"may become ratchet, .*can do more than read"):
        read(owner, QUERY)
    for granted in ("ratchet", "pg_read_server_files", "pg_execute_server_program"):
        run(f"GRANT {granted} TO {role}")
        with pytest.raises(Rejected, match=granted):
            read(reader, QUERY)
        run(f"REVOKE {granted} FROM {role}")
    run(f"ALTER ROLE {role} REPLICATION")
    with pytest.raises(Rejected, match="can do more than read"):
        read(reader, QUERY)
    run(f"ALTER ROLE {role} NOREPLICATION")
    run(f"GRANT EXECUTE ON FUNCTION pg_read_file(text) TO {role}")
    with pytest.raises(Rejected, match=r"may call pg_read_file.*REVOKE"):
        read(reader, QUERY)


HOSTS = [
    "postgresql://evil.example/crm",
    "postgresql://db.example:6000/crm",
    "postgresql://db.example/crm?host=evil.example",
    "postgresql://db.example/crm?hostaddr=10.0.0.1",
    "postgresql://db.example/crm?service=evil",
    "postgresql://db.example/crm?passfile=/etc/shadow",
    "postgresql://db.example,evil.example/crm",
    "postgresql:///crm",
    "postgresql://db.example:5432/host=evil.example",
    "postgresql://db.example:5432/postgresql%3A%2F%2Fevil.example",
    "postgresql://db.example@evil.example/crm",
    "iceberg:https://evil.example#crm.people",
    "iceberg:https://db.example:5432@evil.example#crm.people",
    "iceberg:postgresql://evil.example/crm#crm.people",
    "iceberg:glue#crm.people",
    "http://db.example/rows.csv",
    "mysql://db.example/crm",
]


@pytest.mark.parametrize("source", HOSTS)
def test_a_host_that_is_not_named_is_not_asked(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.getaddrinfo", lambda *_: pytest.fail("no name is resolved"))
    with pytest.raises(Rejected):
        read(source, QUERY if "iceberg" not in source else "", SourceSettings(hosts=("db.example:5432",)))


@pytest.mark.parametrize("uri", ["http://evil.example/x", "HTTPS://evil.example", "Http://evil.example"])
def test_a_catalog_does_not_send_its_clients_elsewhere(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = SimpleNamespace(properties={"uri": uri}, load_table=lambda _: pytest.fail("it is asked"))
    monkeypatch.setattr("blocks.sources.iceberg_tables.load_catalog", lambda *_, **__: opened)
    with pytest.raises(Rejected, match=r"evil\.example.*sources\.hosts"):
        read("iceberg:https://db.example#crm.people", "", SourceSettings(hosts=("db.example",)))


# Places


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files outside of the allowed folder, which no test changes: rows, a database, a Delta and an Iceberg table."""
    folder = tmp_path_factory.mktemp("elsewhere") / "outside"
    folder.mkdir()
    pq.write_table(ROWS, folder / "rows.parquet")
    (folder / "rows.csv").write_text("id,age\na,1\n")
    with closing(sqlite3.connect(folder / "people.db")) as connection:
        connection.executescript("CREATE TABLE people (id, age); INSERT INTO people VALUES ('a', 1)")
    write_deltalake(folder / "delta", ROWS)
    catalog = SqlCatalog("default", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}/warehouse")
    catalog.create_namespace("crm")
    catalog.create_table("crm.people", schema=ROWS.schema).append(ROWS)
    return folder


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir(exist_ok=True)
    return folder


def metadata_of(folder: Path) -> Path:
    return max(folder.rglob("*.metadata.json"))


FORMS = {
    "a file": ("{0}/rows.csv", ""),
    "a folder": ("{0}/delta", ""),
    "a glob": ("{0}/*.csv", ""),
    "a glob that begins above": ("{0}/../out*/rows.csv", ""),
    "a glob over folders": ("{1}/*/rows.csv", ""),
    "upwards": ("{1}/gone/../outside/rows.csv", ""),
    "a file URL": ("file://{0}/rows.csv", ""),
    "an SQLite file": ("sqlite:///{0}/people.db", QUERY),
    "a Delta table": ("delta:{0}/delta", ""),
    "a Delta table as a URL": ("delta:file://{0}/delta", ""),
    "an Iceberg table": ("iceberg:{0}/warehouse/crm/people/metadata/METADATA", ""),
    "an Iceberg table as a URL": ("iceberg:file://{0}/warehouse/crm/people/metadata/METADATA", ""),
    "an Iceberg catalog": ("iceberg:sqlite:///{0}/catalog.db#crm.people", ""),
    "a file that is missing": ("{0}/gone.csv", ""),
    "a process": ("/proc/self/environ", ""),
    "S3": ("s3://bucket/rows.csv", ""),
    "a table in S3": ("delta:s3://bucket/table", ""),
    "an Iceberg table in S3": ("iceberg:s3://bucket/t/metadata/v1.metadata.json", ""),
}


@pytest.mark.parametrize(("form", "query"), FORMS.values(), ids=list(FORMS))
@pytest.mark.parametrize("entry", ["source", "ingest", "batch inference"])
def test_no_kind_of_source_reaches_outside_of_the_allowed_places(
    entry: str, form: str, query: str, outside: Path, inside: Path, tmp_path: Path
) -> None:
    source = form.format(outside, outside.parent).replace("METADATA", metadata_of(outside).name)
    allowed = SourceSettings(roots=(str(inside),))
    env = World.at(tmp_path / "env").model_copy(update={"sources": allowed})
    (tmp_path / "work").mkdir()
    with pytest.raises((Rejected, NotFound)) as refused:
        if entry == "source":
            read(source, query, allowed)
        elif entry == "ingest":
            schema = SPEC.data.ingest_schema()
            open_source_rows(env.lake(), schema, source, query, "", "", tmp_path / "work", env.allowed_sources())
        else:
            env._adapters["ledger"] = World.at(tmp_path / "more")._adapters["ledger"]
            open_inference_input(env, SPEC.data, source, query, "", tmp_path / "work")
    assert "no such file" not in str(refused.value), "it does not say what exists outside"


def test_the_defaults_allow_nothing(database: Path) -> None:
    for source, query in ((str(database.parent), ""), (f"sqlite:///{database}", QUERY), ("s3://b/x.csv", "")):
        with pytest.raises(Rejected, match=r"there are none.*sources\.(roots|buckets)"):
            read(source, query, SourceSettings())


LINKS = {
    "a file": ("rows.csv", "rows.csv", "rows.csv"),
    "a file of a folder": ("sub/rows.csv", "rows.csv", "sub"),
    "a folder": ("sub", ".", "sub/rows.csv"),
    "a file of a glob": ("rows.csv", "rows.csv", "*.csv"),
    "a folder of a glob": ("sub", ".", "*/rows.csv"),
}


@pytest.mark.parametrize(("link", "target", "source"), LINKS.values(), ids=list(LINKS))
def test_a_link_out_of_the_allowed_folder_is_not_followed(
    link: str, target: str, source: str, outside: Path, inside: Path
) -> None:
    (inside / link).parent.mkdir(exist_ok=True)
    (inside / link).symlink_to(outside / target)
    with pytest.raises(Rejected, match=r"sources\.roots"):
        read(f"{inside}/{source}", "", SourceSettings(roots=(str(inside),)))


def test_no_message_names_a_file_behind_a_link_out_of_the_allowed_folder(outside: Path, inside: Path) -> None:
    (outside / "unannounced merger.txt").touch()
    (inside / "sub").symlink_to(outside)
    for source in ("*/*", "*/*.txt", "sub", "sub/*", "sub/unannounced*"):
        with pytest.raises(Rejected, match=r"sub' is not among.*sources\.roots") as refused:
            read(f"{inside}/{source}", "", SourceSettings(roots=(str(inside),)))
        assert "merger" not in str(refused.value) and str(outside) not in str(refused.value)


def test_another_file_of_the_same_size_and_time_is_not_read_in_its_place(outside: Path, inside: Path) -> None:
    path = inside / "one.csv"
    path.write_text("id,age\na,1\n")
    before = path.stat()
    with closing(sources.open_source(str(path), query="", kinds=KINDS, allowed=ANYWHERE)) as opened:
        path.unlink()
        (outside / "two.csv").write_text("id,age\nb,2\n")
        path.symlink_to(outside / "two.csv")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        with pytest.raises(Unavailable, match="changed while it was read"):
            opened.read_table()


def test_a_database_and_a_table_behind_a_link_are_not_followed(outside: Path, inside: Path) -> None:
    allowed = SourceSettings(roots=(str(inside),))
    (inside / "people.db").symlink_to(outside / "people.db")
    write_deltalake(inside / "delta", ROWS)
    (data,) = (inside / "delta").glob("*.parquet")
    data.unlink()
    data.symlink_to(outside / "rows.parquet")
    for source, query in ((f"sqlite:///{inside}/people.db", QUERY), (f"delta:{inside}/delta", "")):
        with pytest.raises(Rejected, match=r"sources\.roots"):
            read(source, query, allowed)
    log = inside / "delta" / "_delta_log" / f"{1:020d}.json"
    log.symlink_to(outside / "rows.csv")
    with pytest.raises(Rejected, match=r"sources\.roots"):
        read(f"delta:{inside}/delta", "", allowed)


@pytest.mark.parametrize(
    "path",
    ["../outside/rows.parquet", "%2e%2e/outside/rows.parquet", "a/%2E./%2e%2e/%2e%2e/outside/rows.parquet",
     "{outside}/rows.parquet", "file://{outside}/rows.parquet", "%2F{outside}/rows.parquet", "s3://other/rows.parquet"],
)  # fmt: skip
def test_a_delta_log_does_not_name_files_elsewhere(path: str, outside: Path, inside: Path) -> None:
    write_deltalake(inside / "delta", ROWS)
    log = inside / "delta" / "_delta_log" / f"{0:020d}.json"
    (data,) = (inside / "delta").glob("*.parquet")
    log.write_text(log.read_text().replace(data.name, path.format(outside=outside)))
    for allowed in (SourceSettings(roots=(str(inside),)), ANYWHERE):
        with pytest.raises(PortError):
            read(f"delta:{inside}/delta", "", allowed)


def iceberg_table(folder: Path) -> Path:
    """A table in the folder, and its newest metadata file."""
    catalog = SqlCatalog("default", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}/warehouse")
    catalog.create_namespace("crm")
    catalog.create_table("crm.people", schema=ROWS.schema).append(ROWS)
    return metadata_of(folder)


def test_an_iceberg_table_in_the_allowed_folder_is_read_and_not_changed(inside: Path) -> None:
    metadata, allowed = iceberg_table(inside), SourceSettings(roots=(str(inside),))
    before = {path: path.read_bytes() for path in inside.rglob("*") if path.is_file()}
    assert read(f"iceberg:{metadata}", "", allowed) == ["a", "b"]
    assert read(f"iceberg:sqlite:///{inside}/catalog.db#crm.people", "", allowed) == ["a", "b"]
    assert {path: path.read_bytes() for path in inside.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("elsewhere", ["file://{outside}/x.avro", "/{outside}/x.avro", "s3://other/x.avro", "http://other/x",
                                       "file://{inside}/../outside/x.avro", "hdfs://other/x"])  # fmt: skip
@pytest.mark.parametrize("way", ["metadata", "catalog"])
def test_an_iceberg_table_does_not_name_files_elsewhere(elsewhere: str, way: str, outside: Path, inside: Path) -> None:
    metadata = iceberg_table(inside)
    content = json.loads(metadata.read_text())
    for snapshot in content["snapshots"]:
        snapshot["manifest-list"] = elsewhere.format(outside=outside, inside=inside)
    metadata.write_text(json.dumps(content))
    source = f"{metadata}" if way == "metadata" else f"sqlite:///{inside}/catalog.db#crm.people"
    with pytest.raises(Rejected, match=r"sources\.(roots|buckets)|only files of this machine|goes upwards"):
        read(f"iceberg:{source}", "", SourceSettings(roots=(str(inside),)))


@pytest.mark.parametrize("way", ["metadata", "catalog", "hint"])
def test_an_iceberg_table_does_not_choose_the_program_that_reads_it(way: str, inside: Path) -> None:
    """pyiceberg imports and calls the class that the table's property `py-io-impl` names."""
    metadata = iceberg_table(inside)
    content = json.loads(metadata.read_text())
    content["properties"] = {"touch": "", f"{inside}/owned": "", "py-io-impl": "subprocess.Popen"}
    metadata.write_text(json.dumps(content))
    (metadata.parent / "version-hint.text").write_text(metadata.name)
    source = {
        "metadata": f"{metadata}",
        "catalog": f"sqlite:///{inside}/catalog.db#crm.people",
        "hint": f"{metadata.parents[1]}",
    }
    assert read(f"iceberg:{source[way]}", "", SourceSettings(roots=(str(inside),))) == ["a", "b"]
    assert not (inside / "owned").exists()


@pytest.mark.parametrize(
    "place", ["ledger.db", "keys/decisions.pem", "lake/rows.csv", "demo/.hidden/rows.csv", ".ssh/rows.csv"]
)
def test_the_state_folder_and_hidden_folders_are_never_a_source(place: str, tmp_path: Path) -> None:
    """As `local.toml` declares it: everything but the state folder, of which the demo's data may be read."""
    state = tmp_path / "state"
    allowed = SourceSettings(roots=("/", f"{state}/demo"), excluded=(str(state),))
    path = (tmp_path if place.startswith(".ssh") else state) / place
    for each in (path, state / "demo" / "rows.csv", tmp_path / "rows.csv"):
        each.parent.mkdir(parents=True, exist_ok=True)
        each.write_text("id,age\na,1\n")
    with pytest.raises(Rejected, match=r"sources\.roots"):
        allowed.check_path(path, "the source")
    (tmp_path / "link.csv").symlink_to(path)
    with pytest.raises(Rejected, match=r"sources\.roots"):
        read(f"{tmp_path}/link.csv", "", allowed)
    assert read(f"{state}/demo/rows.csv", "", allowed) == read(f"{tmp_path}/rows.csv", "", allowed) == ["a"]


def test_an_environment_never_reads_its_own_keys_ledger_and_scratch(tmp_path: Path) -> None:
    from blocks.database.ledger import SqlLedger

    env = World.at(tmp_path)
    env._adapters["ledger"] = SqlLedger(url=f"sqlite:///{tmp_path}/ledger.db")
    signing = env.signing
    for path in (
        signing.decisions_key,
        signing.models_key,
        f"{tmp_path}/ledger.db",
        f"{env.scratch}/x.csv",
        f"{env.evidence_folder}/x",
    ):
        with pytest.raises(Rejected):
            env.allowed_sources().check_path(Path(str(path)), "the source")
    env.allowed_sources().check_path(tmp_path / "rows.csv", "the source")


def path_settings(adapter: type[Block]) -> list[str]:
    """The settings of an adapter that are a path by their type or by their description."""
    fields = adapter.model_fields.items()
    return [
        name
        for name, field in fields
        if "Path" in str(field.annotation)
        or (field.annotation is str and re.match(r"(Local )?([Ff]older|[Ff]ile) ", field.description or ""))
    ]


def test_no_path_in_the_settings_of_any_adapter_is_a_source(tmp_path: Path) -> None:
    names = [each.name for each in walk_packages(blocks.__path__, "blocks.") if ".migrations" not in each.name]
    found = [each for name in names for each in vars(import_module(name)).values() if isinstance(each, type)]
    adapters = {each for each in found if issubclass(each, Block) and not issubclass(each, Environment)}
    settings = [(adapter, name) for adapter in adapters for name in path_settings(adapter)]
    known = {"LocalLake", "LocalTrainer", "LocalEndpoint", "SageMakerTrainer", "DuckDBEngine"}
    assert known <= {adapter.__name__ for adapter, _ in settings}
    env, place = World.at(tmp_path), tmp_path / "a place of its own"
    for adapter, setting in settings:
        env._adapters["lake"] = adapter.model_construct(**{setting: place})
        for path in (place, place / "rows.csv"):
            with pytest.raises(Rejected, match=r"sources\.roots"):
                env.allowed_sources().check_path(path, f"{adapter.__name__}.{setting}")


def test_the_state_folder_and_the_trust_files_are_no_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("RATCHET_TRUST", str(tmp_path / "trust"))
    env = World.at(tmp_path / "env")
    env._adapters["tracking"] = MlflowTracking(tracking_uri=f"sqlite:///{tmp_path}/runs.db")
    for place in ("state/gateway/accounts.db", "state/mlflow.db", "state/keys/x", "trust/local.toml", "runs.db"):
        with pytest.raises(Rejected, match=r"sources\.roots"):
            env.allowed_sources().check_path(tmp_path / place, "the source")
    env.allowed_sources().check_path(tmp_path / "rows.csv", "the source")


KEYS = {
    "absolute": ("{elsewhere}/x.csv", "{elsewhere}/x.csv"),
    "absolute, of a bucket": ("", "{elsewhere}/x.csv"),
    "absolute, of a pattern": ("{elsewhere}/*.csv", "{elsewhere}/x.csv"),
}


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_with_bucket("attacks") as name:
        yield name


@pytest.fixture
def put(bucket: str) -> Iterator[Callable[[str], object]]:
    client = boto3.client("s3")
    yield lambda key: client.put_object(Bucket=bucket, Key=key, Body=b"id,age\na,1\n")
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for found in page.get("Contents", ()):
            client.delete_object(Bucket=bucket, Key=found["Key"])


@pytest.mark.parametrize(("address", "key"), KEYS.values(), ids=list(KEYS))
def test_the_key_of_an_object_writes_no_file_elsewhere(
    address: str, key: str, put: Callable[[str], object], tmp_path: Path
) -> None:
    elsewhere, scratch = tmp_path / "elsewhere", tmp_path / "scratch"
    scratch.mkdir()
    put(key.format(elsewhere=elsewhere))
    assert read(f"s3://attacks/{address.format(elsewhere=elsewhere)}", scratch=scratch) == ["a"]
    assert not elsewhere.exists() and not list(scratch.iterdir())
    with pytest.raises(Rejected, match=r"sources\.buckets"):
        read(f"s3://attacks/{elsewhere}/x.csv", "", SourceSettings(buckets=(f"attacks{elsewhere}",)))


@pytest.mark.parametrize("key", ["in/../x.csv", "in/a\x1b[2Jb.csv", "in/a\u202eb.csv"])
def test_a_key_that_goes_upwards_or_has_control_characters_is_refused(key: str, put: Callable[[str], object]) -> None:
    put(key)
    with pytest.raises(Rejected, match="goes upwards or has control characters"):
        read("s3://attacks/" + "/".join(["in", *["*"] * (key.count("/"))]))


@pytest.mark.parametrize("source", ["s3://other/in/x.csv", "s3://data/x.csv", "s3://data/inner/x.csv", "s3://data/in*", "s3://data/",
                                    "s3://data/in/../x.csv", "s3://data2/in/x.csv", "s3://DATA/in/x.csv", "delta:s3://data/inner/t"])  # fmt: skip
def test_a_bucket_or_prefix_that_is_not_named_is_not_listed(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boto3.client", lambda *_: pytest.fail("nothing is listed"))
    with pytest.raises(Rejected):
        read(source, "", SourceSettings(buckets=("data/in",)))


@pytest.mark.parametrize("source", ["rows\n.csv", "rows\x1b[2J.csv", "s3://bucket/a\x00b.csv", "sqlite:///a\r.db", "delta:/a\u202eb",
                                    "iceberg:/a\x07.metadata.json", "block:\x1b]0;x"])  # fmt: skip
def test_an_address_with_control_characters_is_refused_and_not_repeated(source: str) -> None:
    for act in (resolve_address, lambda address: read(address, QUERY if "sqlite" in address else "")):
        with pytest.raises((Rejected, NotFound)) as refused:
            act(source)
        assert str(refused.value).isprintable()


# Passwords

PASSWORDS = [
    "postgresql://bob:hunter2@host/crm",
    "postgresql://bob:p@hunter2@host/crm",
    "postgresql://bob:p/hunter2@host/crm",
    "postgresql://bob:p?hunter2@host/crm",
    "postgresql://bob:p#hunter2@host/crm",
    "postgresql://bob:12:hunter2@host/crm",
    "postgresql:/bob:hunter2@host/crm",
    "postgresql://bob%3Ahunter2@host/crm",
    "postgresql%3A%2F%2Fbob%3Ahunter2%40host/crm",
    "postgresql://host/crm?user=bob&password=hunter2",
    "postgresql://host/crm?user=bob&pass%77ord=hunter2",
    "postgresql://host/crm?user=bob&pass%2577ord=hunter2",
    "postgresql://host/crm?sslpassword=hunter2",
    "postgresql://host/crm?PASSWORD=hunter2",
    "host=db user=bob password=hunter2 dbname=crm",
    "host=db user=bob password = 'hunter2 hunter2'",
    "mssql+pyodbc:///?odbc_connect=UID%3Dbob%3BPWD%3Dhunter2",
    "mssql+pyodbc:///?odbc_connect=UID=bob;PWD=hunter2",
    "snowflake://account/crm?private_key_passphrase=hunter2",
    "bigquery://project?credentials_base64=hunter2",
    "databricks://host?access_token=hunter2",
    "https://bucket.s3.amazonaws.com/x.csv?X-Amz-Credential=A&X-Amz-Signature=hunter2",
    "https://bucket.s3.amazonaws.com/x.csv?AWSAccessKeyId=A&Signature=hunter2",
    "https://account.blob.core.windows.net/x.csv?sv=2024&sig=hunter2",
    "s3://AKIA:hunter2@bucket/x.csv",
    "iceberg:postgresql://bob:hunter2@host/catalog#crm.people",
    "iceberg:https://bob:hunter2@host#crm.people",
    "delta:s3://AKIA:hunter2@bucket/table",
    "Server=h;Uid=bob;Pwd={a;hunter2};",
    "Server=h;Uid=bob;Pwd={a}};hunter2};",
    "host=db password='a\\' hunter2' dbname=crm",
    "https://hunter2@github.com/rows.csv",
    "iceberg:https://hunter2@host#crm.people",
    "https://host/x.csv?auth=hunter2",
    "https://host/x.csv?a=b&key=hunter2",
    "bob:hunter2@host/crm",
    "password: hunter2",
    "{'password': 'hunter2'}",
    '{"password": "a hunter2", "user": "bob"}',
    '{"password":"hunter2"}',
]


@pytest.mark.parametrize("address", PASSWORDS)
def test_a_password_in_any_form_of_address_is_refused_and_never_shown(address: str) -> None:
    with pytest.raises(Rejected, match=r"(?s)contains a password.*Secret block") as refused:
        resolve_address(address)
    assert "hunter2" not in str(refused.value)
    assert "hunter2" not in masked(f"(driver.Error) could not connect to {address}")


@pytest.mark.parametrize("address", [each for each in PASSWORDS if "://" in each])
def test_an_address_out_of_a_secret_block_shows_no_password_in_any_error(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The block's content is opened as it stands; errors and what caused them are logged."""
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: (_ for _ in ()).throw(OSError("no such host")))
    with pytest.raises(PortError) as refused:
        read(address, QUERY if not address.startswith(("iceberg:", "delta:", "s3:")) else "")
    error: BaseException | None = refused.value
    while error is not None:
        assert "hunter2" not in str(error), repr(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_what_a_snapshot_says_of_its_source_shows_no_password(database: Path) -> None:
    for address in ("postgresql://bob:hunter2@host/crm", "postgresql://host/crm?user=bob&password=hunter2"):
        with closing(sources.open_source(address, query=QUERY, kinds=KINDS, allowed=ANYWHERE)) as opened:
            assert "hunter2" not in opened.description and "host/crm" in opened.description
    assert os.access(database, os.R_OK)
