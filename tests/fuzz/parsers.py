"""What the parsers of this project are given: text and bytes near to what they take, and what each may answer."""

import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import strategies as st

from blocks.common.errors import Rejected
from blocks.sources.csv_files import csv_batches
from blocks.sources.dialects import SourceFormat
from blocks.sources.file_listing import SourceFile
from runtime.admission import UnsafeModel, admit_model
from runtime.columns import BadInput, Column
from runtime.payload import JSON_FORMATS, parse_request
from tasks.shared.rules.model.spec import parse_spec
from tasks.shared.rules.refusal import Refusal
from tests.checkout import ROOT
from tests.fixtures.gateway import Gateway
from tests.fixtures.hooks import GENUINE, SECRET, Hook, mac
from tests.fixtures.malicious_models import plain


@dataclass(frozen=True)
class Target:
    """Something that is fuzzed: the inputs, and a function that raises an error for an input only if it found a fault."""

    inputs: st.SearchStrategy[Any]
    attempt: Callable[[Any], object]


TEXTS = st.one_of(
    st.text(max_size=40), st.sampled_from(["", "NaN", "1e999", "-0", "\x00", "\ud800", "=1+1", "9" * 400, "é" * 50])
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def spoilt(contents: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Return contents with a few pieces cut out, repeated, or replaced by others."""
    pieces = st.one_of(
        st.binary(max_size=12),
        st.sampled_from(
            [
                b'"',
                b"\r",
                b"\n\n",
                b",",
                b"{",
                b"[" * 200,
                b"\xff\xfe",
                b"\x00",
                b"&a *a",
                b"!!python/x",
                b"- " * 80,
                b": ",
            ]
        ),
    )
    edits = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 40), pieces, st.integers(1, 3)), max_size=5)

    def edited(drawn: tuple[bytes, list[tuple[float, int, bytes, int]]]) -> bytes:
        content, changes = drawn
        for place, cut, piece, times in changes:
            at = int(place * len(content))
            content = content[:at] + piece * times + content[at + cut :]
        return content

    return st.tuples(contents, edits).map(edited)


def _encoded(value: object) -> bytes:
    return json.dumps(value).encode(errors="replace")


# --- the model server's requests

COLUMNS = [
    Column("id", "string", required=False),
    Column("age", "double"),
    Column("count", "long"),
    Column("active", "boolean"),
    Column("at", "datetime", required=False),
]
_ROW = {"id": "a", "age": 1.5, "count": 3, "active": True, "at": "2026-01-01T00:00:00"}
_SHAPES = {
    "dataframe_split": {"columns": list(_ROW), "data": [list(_ROW.values())] * 2},
    "dataframe_records": [_ROW, _ROW],
    "instances": [_ROW],
    "inputs": {name: [value] for name, value in _ROW.items()},
}
_CSV = b'id,age,count,active,at\n"a, b",1.5,3,true,2026-01-01\n"c ""d""",,4,false,\n'


def read_request(drawn: tuple[bytes, str]) -> None:
    body, content_type = drawn
    try:
        payload = parse_request(body, content_type, COLUMNS)
    except BadInput as refused:
        assert 400 <= refused.status < 500
        assert len(str(refused)) < 2_000, "an error repeats what was sent"
        return
    assert list(payload.frame.columns) == [column.name for column in COLUMNS]
    assert len(payload.frame) > 0


_REQUESTS = st.tuples(
    st.one_of(
        spoilt(st.sampled_from([_encoded({shape: content}) for shape, content in _SHAPES.items()] + [_CSV])),
        st.tuples(st.sampled_from(JSON_FORMATS), VALUES).map(lambda drawn: _encoded({drawn[0]: drawn[1]})),
        st.binary(max_size=200),
    ),
    st.sampled_from(["application/json", "text/csv", "application/json; charset=utf-8"]) | TEXTS,
)


# --- webhooks

_EVENTS = tuple(make() for make in GENUINE.values())
_HEADERS = st.sampled_from(sorted({name for each in _EVENTS for name, _ in each.headers}))
_HEADER_VALUES = st.binary(max_size=60).map(lambda value: value.translate(None, b"\r\n\x00"))


def _signed(hook: Hook) -> Hook:
    """Sign the body anew, so that what comes after the signature is reached."""
    signed = {
        "github": ("x-hub-signature-256", "sha256=" + mac(hook.body)),
        "bitbucket": ("x-hub-signature", "sha256=" + mac(hook.body)),
        "gitea": ("x-gitea-signature", mac(hook.body)),
        "gitlab": ("x-gitlab-token", SECRET),
    }[hook.sender]
    return hook.but(**{signed[0].replace("-", "_"): signed[1]})


def deliver(drawn: tuple[Hook, bytes, bool, list[tuple[str, bytes]]]) -> None:
    hook, body, sign, headers = drawn
    gateway = Gateway()
    changed = replace(hook, body=body)
    changed = _signed(changed) if sign else changed
    for name, value in headers:
        changed = changed.and_also(name, value)
    (response,) = gateway.send(changed)
    assert response.status_code in {200, 202, 400, 401, 403, 404, 409, 413, 415, 422}, response.text
    assert sign or body == hook.body or response.status_code >= 400 or hook.sender == "gitlab", "a forgery was accepted"
    assert len(gateway.waiting) <= 1


def _deliveries() -> st.SearchStrategy[Any]:
    def of(hook: Hook) -> st.SearchStrategy[Any]:
        bodies = spoilt(st.just(hook.body)) | VALUES.map(_encoded)
        return st.tuples(
            st.just(hook), bodies, st.booleans(), st.lists(st.tuples(_HEADERS, _HEADER_VALUES), max_size=2)
        )

    return st.sampled_from(_EVENTS).flatmap(of)


# --- model folders and model.yaml


@contextmanager
def _model() -> Iterator[Path]:
    with TemporaryDirectory() as folder:
        yield plain(Path(folder) / "model")


def _described() -> bytes:
    with _model() as model:
        return (model / "MLmodel").read_bytes()


def admit(drawn: tuple[str, bytes]) -> None:
    name, content = drawn
    with _model() as model:
        path = model / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        try:
            admit_model(model, None)
        except UnsafeModel:
            return
        if name == "model.skops":
            assert zipfile.is_zipfile(path)
        assert not content.startswith((b"\x80\x04", b"\x1f\x8b"))


_MODELS = st.one_of(
    st.tuples(st.just("MLmodel"), st.deferred(lambda: spoilt(st.just(_described())))),
    st.tuples(
        st.sampled_from(["model.skops", "notes.txt", "code/x.py", "a/MLmodel", "x.PKL", "weights.bin"]),
        spoilt(st.sampled_from([b"PK\x05\x06" + bytes(18), b"\x80\x04K\x01.", b"\x1f\x8b\x08", b"text"])),
    ),
)


def read_spec(content: bytes) -> None:
    try:
        parse_spec(content, "model.yaml")
    except Refusal as refusal:
        assert len(str(refusal)) < 50_000, "an error repeats what was sent"


_SPECS = st.deferred(
    lambda: spoilt(st.sampled_from([path.read_bytes() for path in sorted(ROOT.glob("models/*/model.yaml"))]))
)


# --- delimited files

_KINDS = {"id": "text", "age": "number", "plan": "category", "active": "flag", "at": "time"}
_ROWS = b'id,age,plan,active,at\na,"1.5",basic,true,2026-01-01\n"b ""x""\n",2,,false,\n'
_FORMATS = st.builds(
    SourceFormat,
    delimiter=st.sampled_from(["", ",", ";", "\t", "|"]),
    decimal=st.sampled_from([".", ","]),
    thousands=st.sampled_from(["", " ", "'"]),
    encoding=st.sampled_from(["utf-8", "utf-16", "latin-1", "cp1252", "utf-32-le"]),
    quoted=st.booleans(),
)


def read_rows(drawn: tuple[bytes, SourceFormat, str]) -> None:
    content, form, encoding = drawn
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        path.write_bytes(content if encoding == "as it is" else content.decode(errors="replace").encode(encoding))
        try:
            batches = list(csv_batches(SourceFile(path, "line", form), _KINDS, {}))
        except Rejected:
            return
        assert batches


_FILES = st.tuples(
    spoilt(st.sampled_from([_ROWS, _ROWS.replace(b",", b";"), b"sep=;\n" + _ROWS.replace(b",", b";")])),
    _FORMATS,
    st.sampled_from(["as it is", "utf-16", "utf-32-le"]),
)

PARSERS = {
    "requests": Target(_REQUESTS, read_request),
    "webhooks": Target(_deliveries(), deliver),
    "models": Target(_MODELS, admit),
    "model.yaml": Target(_SPECS, read_spec),
    "delimited": Target(_FILES, read_rows),
}
"""The parsers, by the names that `make fuzz` prints."""
