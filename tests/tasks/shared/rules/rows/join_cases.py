"""A model of several tables, rows for it, and the join as anyone would write it in plain Python."""

from datetime import UTC, datetime, timedelta
from functools import cache

import duckdb
import pyarrow as pa

from tasks.shared.rules.model.spec import ModelSpec, parse_spec

START = datetime(2026, 1, 1, tzinfo=UTC)
TIME = pa.timestamp("us", tz="UTC")

JOINED = """\
name: late
description: Whether a parcel is late.
owner: team@example.com
task: binary
data:
  dataset: parcels
  entity: customer
  time: asked_at
  target: late
  classes: ["No", "Yes"]
  features:
    weight: number
    depot: category
    balance: number
    segment: category
    rain: number
    country: category
  tables:
    accounts:
      dataset: accounts
      keys: {customer: customer_id}
      time: valid_from
      columns: {balance: balance, segment: "seg\\"ment"}
    weather:
      dataset: weather
      keys: {depot: place}
      time: seen_at
      columns: {rain: rain}
    people:
      dataset: people
      keys: {customer: who}
      columns: {country: country}
training: {seed: 7, max_minutes: 10, max_memory_mb: 1024}
evaluation:
  minimum_rows: 1
  floors:
    - {metric: auc, at_least: 0.4}
  comparison: {metric: auc, rule: superior, margin: 0.01, confidence: 0.95}
"""

SCHEMAS = {
    "": pa.schema([("customer", pa.string()), ("asked_at", TIME), ("depot", pa.string()), ("weight", pa.float64()),
                   ("late", pa.string())]),
    "accounts": pa.schema([("customer_id", pa.string()), ("valid_from", TIME), ("balance", pa.float64()),
                           ('seg"ment', pa.string())]),
    "weather": pa.schema([("place", pa.string()), ("seen_at", TIME), ("rain", pa.float64())]),
    "people": pa.schema([("who", pa.string()), ("country", pa.string())]),
}  # fmt: skip


def joined_spec() -> ModelSpec:
    return parse_spec(JOINED, "model.yaml")


def at(hour):
    """Return the time so many hours after the start, or None."""
    return None if hour is None else START + timedelta(hours=hour)


def table(name, rows):
    """Return rows (tuples in the order of the schema) as the table of that name."""
    return pa.Table.from_pylist([dict(zip(SCHEMAS[name].names, row, strict=True)) for row in rows], SCHEMAS[name])


@cache
def engine():
    """Return one DuckDB for all tests, with the function that every engine of ours has."""
    opened = duckdb.connect(config={"threads": 1})
    opened.execute(
        "CREATE MACRO bucket_of(key, digit) AS CAST(CAST('0x' || substr(md5(key), digit, 8) AS BIGINT) % 10000 AS INT)"
    )
    return opened


def ask(sql, **tables):
    """Run SQL over tables in memory."""
    with engine().cursor() as cursor:
        for name, rows in tables.items():
            cursor.register(name, rows)
        return cursor.sql(sql).to_arrow_table()


def slowly(data, tables):
    """Return the joined rows in the order of entity, time and the rest, looking at every row of every table."""
    found = []
    order = list(data.landing().kinds)
    for row in sorted(tables[""].to_pylist(), key=lambda row: comparable([row[column] for column in order])):
        whole = {column: row.get(column) for column in data.row_columns}
        for name, further in data.tables.items():
            best = latest_row(further, tables[name].to_pylist(), row, row[data.time])
            whole |= {feature: best and best[column] for feature, column in further.columns.items()}
        found.append([whole[column] for column in data.row_columns])
    return found


def latest_row(further, rows, asked, now):
    """Return the one row of `rows` that the row `asked` takes, or None."""
    met = [row for row in rows if all(asked[ours] is not None and asked[ours] == row[theirs]
                                      for ours, theirs in further.keys.items())]  # fmt: skip
    if further.time:
        met = [row for row in met if row[further.time] is not None and now is not None and row[further.time] <= now]
        met = [row for row in met if row[further.time] == max(other[further.time] for other in met)]
    return max(met, key=lambda row: comparable([row[column] for column in further.columns.values()]), default=None)


def comparable(values):
    """Return values so that they sort with None before all else."""
    return [(value is not None, value) for value in values]
