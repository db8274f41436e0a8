"""DuckDB on S3: it reads the files of a bucket like those of a folder, and names missing files."""

import math
from collections.abc import Iterator

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer

from blocks.common.errors import Corrupt, NotFound, Unavailable
from blocks.engines.duckdb import DuckDBEngine


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[DuckDBEngine]:
    """Return an engine that reads from the bucket `lake` of a local S3 server, with two files of different columns."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    try:
        store = boto3.client("s3", endpoint_url=url, region_name="us-east-1")
        store.create_bucket(Bucket="lake")
        tables = {
            "one.parquet": pa.table({"_bucket": pa.array([1, 500], pa.int32()), "n": [0.5, math.nan]}),
            "two.parquet": pa.table({"_bucket": pa.array([2], pa.int32()), "n": [1.0], "t": ["ü"]}),
        }
        for name, table in tables.items():
            sink = pa.BufferOutputStream()
            pq.write_table(table, sink)
            store.put_object(Bucket="lake", Key=f"a b/{name}", Body=sink.getvalue().to_pybytes())
        store.put_object(Bucket="lake", Key="broken.parquet", Body=b"PAR1 and no more")
        yield DuckDBEngine(s3_endpoint_url=url, s3_region="us-east-1")
    finally:
        server.stop()


FILES = ("s3://lake/a b/one.parquet", "s3://lake/a b/two.parquet")


def test_files_of_a_bucket_meet_by_name_and_keep_their_rows(engine: DuckDBEngine) -> None:
    sql = "SELECT _bucket, n, t FROM t ORDER BY _bucket"
    rows = engine.query(sql, {"t": FILES}).to_pylist()
    assert [(row["_bucket"], row["t"]) for row in rows] == [(1, None), (2, "ü"), (500, None)]
    assert math.isnan(rows[2]["n"])
    counted = engine.query("SELECT count(*) AS c FROM t WHERE n > 7e0 AND _bucket < 1000", {"t": FILES})
    assert counted.to_pylist() == [{"c": 1}], "NaN is greater than every number"
    assert engine.stream(sql, {"t": FILES}).read_all().num_rows == 3


def test_what_is_missing_or_broken_in_a_bucket_is_named(engine: DuckDBEngine) -> None:
    with pytest.raises(NotFound, match=r"gone\.parquet"):
        engine.query("SELECT * FROM t", {"t": [*FILES, "s3://lake/gone.parquet"]})
    with pytest.raises(Corrupt, match=r"broken\.parquet"):
        engine.query("SELECT * FROM t", {"t": [*FILES, "s3://lake/broken.parquet"]})


@pytest.mark.slow
def test_a_bucket_that_does_not_answer_is_a_matter_of_trying_again(engine: DuckDBEngine) -> None:
    silent = engine.model_copy(update={"s3_endpoint_url": "http://127.0.0.1:9"})
    with pytest.raises(Unavailable):
        silent.query("SELECT * FROM t", {"t": FILES})
