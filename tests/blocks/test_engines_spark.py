"""Spark: SQL that it would read differently, and settings that would change results, are refused before it starts."""

import importlib.util

import pytest

from blocks.common.errors import Rejected
from blocks.engines.spark import SparkEngine, to_spark_sql

pytestmark = pytest.mark.skipif(importlib.util.find_spec("sqlglot") is None, reason="sqlglot is not installed here")

UNEQUAL = {
    "nearest time": ("SELECT l.x FROM l ASOF LEFT JOIN r ON l.k = r.k AND l.t >= r.t", "ASOF JOIN.*window"),
    "by position": ("SELECT l.x FROM l POSITIONAL JOIN r", "POSITIONAL"),
    "a random sample": ("SELECT x FROM l USING SAMPLE 10", "sample.*bucket_of"),
    "a sample of a table": ("SELECT x FROM l TABLESAMPLE 10%", "sample.*bucket_of"),
    "a bucket of nothing said": ("SELECT bucket_of(x) AS b FROM l", "bucket_of takes 2 arguments here, not 1"),
    "a statement": ("CREATE TABLE l AS SELECT 1 AS x", "not a single query"),
    "two queries": ("SELECT 1 AS x; SELECT 2 AS x", "not a single query"),
}


@pytest.mark.parametrize(("sql", "said"), UNEQUAL.values(), ids=UNEQUAL)
def test_what_spark_would_read_as_something_else_is_refused(sql: str, said: str) -> None:
    with pytest.raises(Rejected, match=said):
        to_spark_sql(sql)


def test_calls_within_calls_are_all_translated() -> None:
    words = to_spark_sql(
        "SELECT bucket_of(CAST(CAST(strlen(t) AS HUGEINT) AS VARCHAR), 9) AS b FROM l WHERE isfinite(x)"
    )
    assert "BUCKET_OF" not in words.upper()
    assert "STRLEN" not in words.upper()
    assert "ISFINITE" not in words.upper()
    assert "DECIMAL(38, 0)" in words


def test_a_setting_on_which_answers_rest_cannot_be_changed() -> None:
    engine = SparkEngine(configuration={"spark.sql.session.timeZone": "Europe/Berlin"})
    with pytest.raises(Rejected, match=r"spark\.sql\.session\.timeZone"):
        engine.query("SELECT 1 AS x", {})
