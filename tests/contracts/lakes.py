"""The lakes that the contract suites run over, the rows that they append, and ways to do damage."""

import io
import uuid
from datetime import UTC, datetime
from pathlib import Path

import boto3
import numpy as np
import pyarrow as pa
import pytest
from moto.server import ThreadedMotoServer
from pyarrow import csv

from blocks.lake.base import BUCKET_COLUMN
from blocks.lake.fake import FakeLake
from blocks.lake.local import LocalLake
from blocks.lake.s3 import S3Lake

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture(scope="session")
def s3():
    """A server that speaks S3, conditional puts included: its address."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        server.start()
        yield "http://{}:{}".format(*server.get_host_and_port())
        server.stop()


def in_bucket(address, spill):
    """A lake in a bucket of its own."""
    bucket = f"lake-{uuid.uuid4().hex}"
    boto3.client("s3", endpoint_url=address).create_bucket(Bucket=bucket)
    return S3Lake(bucket=bucket, prefix="a/lake", endpoint_url=address, spill_folder=spill)


@pytest.fixture(params=["local", "fake", pytest.param("s3", marks=pytest.mark.slow)])
def lake(request, tmp_path):
    if request.param == "s3":
        return in_bucket(request.getfixturevalue("s3"), tmp_path / "spill")
    return LocalLake(root=tmp_path / "lake") if request.param == "local" else FakeLake()


def alter(lake, url, change):
    """Change the bytes at a path or URL behind the lake's back; None removes them."""
    if not url.startswith("s3://"):
        path = Path(url)
        return path.unlink() if change is None else path.write_bytes(change(path.read_bytes()))
    client, at = lake.store._client, dict(zip(("Bucket", "Key"), url[5:].split("/", 1), strict=True))
    if change is None:
        return client.delete_object(**at)
    return client.put_object(**at, Body=change(client.get_object(**at)["Body"].read()))


@pytest.fixture
def local(tmp_path):
    return LocalLake(root=tmp_path / "lake")


def people(count=500, start=0, **columns):
    rng = np.random.default_rng(start)
    table = {
        "id": pa.array([f"c{i}" for i in range(start, start + count)]),
        "age": pa.array(rng.normal(40, 9, count), mask=rng.random(count) < 0.1),
        "plan": pa.array(rng.choice(["a", "b", None], count).tolist(), type=pa.string()),
        BUCKET_COLUMN: pa.array(rng.integers(0, 10_000, count).astype(np.int32)),
    }
    return pa.table({**table, **columns})


def append(lake, table, key="k1", at=NOON, **more):
    return lake.append("people", table, source="test", key=key, at=at, **more)


def as_bytes(table):
    """The table's columns, types, batches and every value in order (what lies in memory below a null is none)."""
    sink = io.BytesIO(repr([table.schema, [len(batch) for batch in table.to_batches()]]).encode())
    sink.seek(0, io.SEEK_END)
    csv.write_csv(table, sink)
    return sink.getvalue()


def ids(table):
    return table["id"].to_pylist()


def flip(lake, snapshot, name, offset):
    alter(lake, lake.url_of(snapshot, name), lambda data: flipped(data, offset))


def flipped(data, offset, bit=1):
    return data[:offset] + bytes([data[offset] ^ bit]) + data[offset + 1 :]
