"""DuckDB: distinct counts beside other aggregates do not copy all rows into memory."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from blocks.engines.duckdb import DuckDBEngine


def test_counting_different_values_beside_other_aggregates_does_not_copy_the_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": [1.0, 2.0, 3.0], "c": ["a", "b", "a"]}), tmp_path / "rows.parquet")
    tables = {"t": [str(tmp_path / "rows.parquet")]}
    sql = "SELECT count(*) AS rows, avg(n) AS mean, count(DISTINCT c) AS kinds, count(DISTINCT n) AS numbers FROM t"
    engine = DuckDBEngine()
    assert engine.query(sql, tables).to_pylist() == [{"rows": 3, "mean": 2.0, "kinds": 2, "numbers": 3}]
    with engine._connection(tables) as connection:
        plan = connection.sql(f"EXPLAIN {sql}").fetchall()[0][1]
    assert "CTE" not in plan, "each CTE is a copy of all rows"
    assert plan.count("READ_PARQUET") == 1
