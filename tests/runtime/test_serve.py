"""The server in a model's container: which input it accepts, what it predicts, and its errors for invalid input."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import scoring, serve
from runtime.columns import BadInput, Column
from runtime.digests import folder_digest
from runtime.payload import Payload, parse_request
from runtime.serve import create_app
from runtime.signatures import RowKey, signature_file
from tests.checkout import ROOT
from tests.fixtures.scoring import COLUMNS, REQUEST, ROWS, answers, churn_model, frame, python_code_model
from tests.fixtures.signing_keys import MODELS, signed
from tests.waiting import wait_for

KNOWN = (
    Column("tenure", "double"),
    Column("charges", "double", required=False),
    Column("flag", "long"),
    Column("contract", "string"),
)
GOOD = {"tenure": 34, "charges": 20.5, "flag": 1, "contract": "month"}
LAST = {"tenure": 1, "charges": None, "flag": 0, "contract": "year"}
CSV = "tenure,charges,flag,contract\n"


def records(**changes: object) -> bytes:
    """Return one valid row and one with changes; a change to `...` removes the column."""
    row = {name: value for name, value in (GOOD | changes).items() if value is not ...}
    return json.dumps({"dataframe_records": [GOOD, row]}).encode()


def read(body: bytes | str, content_type: str = "application/json") -> Payload:
    return parse_request(body.encode() if isinstance(body, str) else body, content_type, KNOWN)


def split(columns: object, data: object) -> bytes:
    return json.dumps({"dataframe_split": {"columns": columns, "data": data}}).encode()


SHAPES = {
    "split": (split(COLUMNS, [list(GOOD.values()), list(LAST.values())]), "application/json"),
    "split in another order": (split(COLUMNS[::-1], [list(GOOD.values())[::-1], list(LAST.values())[::-1]]),),
    "records": (json.dumps({"dataframe_records": [GOOD, LAST]}).encode(), "application/json; charset=utf-8"),
    "records without the optional value": (
        json.dumps({"dataframe_records": [GOOD, {k: v for k, v in LAST.items() if v is not None}]}).encode(),
    ),
    "instances by name": (json.dumps({"instances": [GOOD, LAST]}).encode(),),
    "instances by position": (json.dumps({"instances": [list(GOOD.values()), list(LAST.values())]}).encode(),),
    "inputs by column": (json.dumps({"inputs": {c: [GOOD[c], LAST[c]] for c in COLUMNS}}).encode(),),
    "csv": (f"{CSV}34,20.5,1,month\n1,,0,year\n".encode(), "text/csv"),
    "csv from a spreadsheet": (
        b"\xef\xbb\xbf" + f'{CSV}34.0,2.05e1,1.0,"month"\r\n1,,0,year\r\n\r\n'.encode(),
        "text/csv; charset=UTF-8",
    ),
}


@pytest.mark.parametrize("request_", SHAPES.values(), ids=SHAPES.keys())
def test_every_shape_of_input_gives_the_same_frame(request_: tuple[bytes, ...]) -> None:
    came = read(*request_).frame
    pd.testing.assert_frame_equal(came, frame([list(GOOD.values()), list(LAST.values())]), check_dtype=True)


WHO, WHEN = "who", "when"
KEY = RowKey(WHO, WHEN)
AT = "2026-03-29T01:30:00.5+02:00"
AT_UTC = "2026-03-28T23:30:00.500000+00:00"
KEYED = {
    "split": (split([WHO, *COLUMNS, WHEN], [[7, *GOOD.values(), AT], ["c-2", *LAST.values(), None]]),),
    "records": (json.dumps({"dataframe_records": [GOOD | {WHO: 7, WHEN: AT}, LAST | {WHO: "c-2"}]}).encode(),),
    "instances by name": (json.dumps({"instances": [GOOD | {WHO: 7.0, WHEN: AT}, LAST | {WHO: "c-2"}]}).encode(),),
    "inputs by column": (
        json.dumps({"inputs": {**{c: [GOOD[c], LAST[c]] for c in COLUMNS}, WHO: [7, "c-2"], WHEN: [AT, " "]}}).encode(),
    ),
    "csv": (f"{WHEN},{WHO},{CSV}{AT},7,34,20.5,1,month\n,c-2,1,,0,year\n".encode(), "text/csv"),
}


@pytest.mark.parametrize("request_", KEYED.values(), ids=KEYED.keys())
def test_every_shape_may_bring_entity_and_time_which_the_model_does_not_get(request_: tuple[bytes, ...]) -> None:
    read_ = parse_request(request_[0], (*request_, "application/json")[1], KNOWN, KEY)
    pd.testing.assert_frame_equal(read_.frame, frame([list(GOOD.values()), list(LAST.values())]), check_dtype=True)
    assert read_.sent_values[WHO] == ("7", "c-2")
    assert read_.sent_values[WHEN] == (AT_UTC, None)


def test_a_model_gets_entity_and_time_where_they_are_columns_of_its_own() -> None:
    columns = [Column(WHO, "string"), Column(WHEN, "datetime"), Column("tenure", "double")]
    body = json.dumps({"dataframe_records": [{WHO: "c-1", WHEN: AT, "tenure": 1}]}).encode()
    given_ = parse_request(body, "application/json", columns, KEY)
    assert given_.frame.to_dict("records") == [
        {WHO: "c-1", WHEN: pd.Timestamp(AT).tz_convert("UTC").tz_localize(None), "tenure": 1.0}
    ]
    assert given_.sent_values[WHEN] == (AT_UTC,)


BAD_KEYS: dict[str, tuple[object, object, str]] = {
    "a time without its zone": ("c-1", "2026-03-29T01:30:00", "column 'when', row 1: expected a time with a zone"),
    "a day": ("c-1", "2026-03-29", "'when', row 1: expected a time with a zone"),
    "a time as a number": ("c-1", 1774740600, "'when', row 1: expected a time with a zone"),
    "a time that is none": ("c-1", "2026-02-30T00:00:00Z", "'when', row 1: .*there is no such day"),
    "a time before the first year": (
        "c-1",
        "0001-01-01T00:00:00+01:00",
        "'when', row 1: .*outside the years 1 to 9999",
    ),
    "nanoseconds": ("c-1", "2026-03-29T01:30:00.123456789Z", "'when', row 1: expected a time with a zone"),
    "a key that lost digits": (1e300, AT, "column 'who', row 1: expected a key .text or a whole number., got 1e.300"),
    "a flag as a key": (True, AT, "'who', row 1"),
    "a list as a key": ([1], AT, "'who', row 1"),
    "half a character": ("\ud800", AT, "'who', row 1"),
}


@pytest.mark.parametrize(("who", "when", "words"), BAD_KEYS.values(), ids=BAD_KEYS.keys())
def test_a_key_or_time_without_a_canonical_form_is_refused_with_its_place(
    who: object, when: object, words: str
) -> None:
    body = json.dumps({"dataframe_records": [GOOD, GOOD | {WHO: who, WHEN: when}]}).encode()
    with pytest.raises(BadInput, match=words):
        parse_request(body, "application/json", KNOWN, KEY)


def test_only_the_named_columns_are_accepted_beside_the_models() -> None:
    body = json.dumps({"dataframe_records": [GOOD | {"whoo": "c-1"}]}).encode()
    with pytest.raises(BadInput, match="does not know the column 'whoo'; did you mean 'who'"):
        parse_request(body, "application/json", KNOWN, KEY)
    timeless = json.dumps({"dataframe_records": [GOOD | {WHEN: AT}]}).encode()
    with pytest.raises(BadInput, match="does not know the column 'when'"):
        parse_request(timeless, "application/json", KNOWN, RowKey(WHO))


BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "the body is empty"),
    "a byte order mark alone": (b"\xef\xbb\xbf", "the body is empty"),
    "blank": (b" \n ", "the body is empty"),
    "broken JSON": (b'{"dataframe_records": [', "not valid JSON"),
    "not UTF-8": (b'{"dataframe_records": [{"contract": "\xe9"}]}', "not UTF-8: byte 37"),
    "UTF-16": ('{"instances": []}'.encode("utf-16"), "not UTF-8: byte 0"),
    "too deep": (b"[" * 100_000, "nested too deeply"),
    "huge number": (b'{"instances": [' + b"9" * 5000 + b"]}", "not valid JSON"),
    "a list": (b"[1, 2]", "JSON list"),
    "a text": (b'"rows"', "JSON text"),
    "null": (b"null", "JSON null"),
    "no known field": (b'{"rows": []}', "'rows'"),
    "two shapes": (b'{"instances": [], "inputs": []}', "'inputs', 'instances'"),
    "unknown field": (b'{"instances": [[1]], "instanses": 1}', "'instanses'"),
    "params no object": (b'{"instances": [[1]], "params": 3}', "params"),
    "no rows": (b'{"dataframe_records": []}', "no rows"),
    "no rows by position": (split(COLUMNS, []), "no rows"),
    "no rows by column": (b'{"inputs": {}}', "no rows"),
    "rows no list": (b'{"dataframe_records": {"tenure": 1}}', "dataframe_records is a JSON object"),
    "row no object": (b'{"dataframe_records": [1]}', "row 0 is a JSON number"),
    "row no list": (b'{"instances": [[34, 1, 1, "a"], {}]}', "row 1 is a JSON object"),
    "split no object": (b'{"dataframe_split": [1]}', "dataframe_split"),
    "split unknown field": (b'{"dataframe_split": {"data": [], "colums": []}}', "'colums'"),
    "split names no text": (split([1, 2, 3, 4], [[34, 1, 1, "a"]]), "columns is not a list of names"),
    "duplicate column": (split([*COLUMNS, "flag"], [[34, 1, 1, "a", 0]]), "'flag' is there more than once"),
    "short row": (split(COLUMNS, [list(GOOD.values()), [34, 1, 1]]), "row 1 has 3 values; there are 4 columns"),
    "long row": (split(COLUMNS, [[34, 1, 1, "a", 5]]), "row 0 has 5 values"),
    "columns of two lengths": (b'{"inputs": {"tenure": [1, 2], "flag": [1]}}', "'flag': 1"),
    "missing column": (split(COLUMNS[1:], [[1, 1, "a"]]), "lacks the column 'tenure'"),
    "missing in one row": (records(tenure=...), "row 1 lacks the column 'tenure'"),
    "misspelt required": (records(tenure=..., tenur=1), "does not know the column 'tenur'; did you mean 'tenure'"),
    "misspelt optional": (records(chages=1), "does not know the column 'chages'; did you mean 'charges'"),
    "extra column": (records(customer_id="7590"), "does not know the column 'customer_id'"),
    "text for a number": (records(tenure="34 days"), "column 'tenure', row 1: expected a finite number, got '34 days'"),
    "boolean for a number": (records(tenure=True), "column 'tenure', row 1.*got True"),
    "list for a number": (records(tenure=[1]), r"column 'tenure', row 1.*got \[1\]"),
    "fraction for a whole number": (records(flag=0.5), "column 'flag', row 1: expected a whole number, got 0.5"),
    "too large a whole number": (records(flag=2**63), "column 'flag', row 1"),
    "too large a number": (records(tenure=10**400), "column 'tenure', row 1"),
    "NaN": (records(tenure=float("nan")), "column 'tenure', row 1: expected a finite number, got nan"),
    "NaN in an optional column": (records(charges=float("nan")), "column 'charges', row 1"),
    "infinity": (records(charges=float("inf")), "column 'charges', row 1.*got inf"),
    "null in a required column": (records(tenure=None), "column 'tenure', row 1: the value is missing"),
    "null for a whole number": (records(flag=None), "column 'flag', row 1"),
    "number for a text": (records(contract=3), "column 'contract', row 1: expected text, got 3"),
    "half a character": (
        b'{"dataframe_records": [{"tenure": 1, "flag": 1, "contract": "\\ud800"}]}',
        "column 'contract', row 0",
    ),
}


@pytest.mark.parametrize(("body", "words"), BAD.values(), ids=BAD.keys())
def test_bad_json_is_refused_and_the_place_is_named(body: bytes, words: str) -> None:
    with pytest.raises(BadInput, match=words) as refused:
        read(body)
    assert refused.value.status == 400
    assert len(str(refused.value)) < 600


BAD_CSV = {
    "header only": (CSV, "no rows"),
    "extra field": (f"{CSV}34,1,1,a,b\n", "row 0 has 5 values; there are 4 columns"),
    "short row": (f"{CSV}34,1,1\n", "row 0 has 3 values"),
    "unclosed quote": (f'{CSV}34,1,1,"a\n', "the CSV is broken"),
    "NUL": (f"{CSV}34,1,1,a\0\n", "NUL"),
    "duplicate column": ("tenure,tenure,flag,contract\n1,1,1,a\n", "'tenure' is there more than once"),
    "other separator": ("tenure;charges;flag;contract\n34;1;1;a\n", "lacks the columns 'tenure'"),
    "no header": ("34,1,1,a\n34,1,1,a\n", "lacks the columns 'tenure'|is there more than once"),
    "word for a number": (f"{CSV}NA,1,1,a\n", "column 'tenure', row 0: expected a finite number, got 'NA'"),
    "thousands": (f'{CSV}"1,000",1,1,a\n', "column 'tenure', row 0"),
    "underscore": (f"{CSV}1_000,1,1,a\n", "column 'tenure', row 0"),
    "nan": (f"{CSV}nan,1,1,a\n", "column 'tenure', row 0"),
    "missing": (f"{CSV},1,1,a\n", "column 'tenure', row 0: the value is missing"),
    "huge field": (f"{CSV}34,1,1,{'a' * 200_000}\n", "the CSV is broken"),
}


@pytest.mark.parametrize(("text", "words"), BAD_CSV.values(), ids=BAD_CSV.keys())
def test_bad_csv_is_refused_and_the_place_is_named(text: str, words: str) -> None:
    with pytest.raises(BadInput, match=words) as refused:
        read(text, "text/csv")
    assert refused.value.status == 400


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "text/csv; charset=latin-1"])
def test_another_content_type_is_refused_by_name(kind: str) -> None:
    with pytest.raises(BadInput) as refused:
        read(records(), kind)
    assert refused.value.status == 415


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*COLUMNS, "x"]), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, derandomize=True)
@given(shape=st.sampled_from(["dataframe_split", "dataframe_records", "instances", "inputs"]), content=JSON_VALUES)
def test_whatever_json_is_sent_it_is_read_or_refused(shape: str, content: object) -> None:
    try:
        came = read(json.dumps({shape: content}).encode()).frame
    except BadInput:
        return
    assert list(came.columns) == COLUMNS
    assert len(came) > 0


@settings(max_examples=200, derandomize=True)
@given(st.binary(max_size=60), st.sampled_from(["application/json", "text/csv"]))
def test_whatever_bytes_are_sent_they_are_read_or_refused(body: bytes, kind: str) -> None:
    with pytest.raises(BadInput):
        read(body, kind)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("float", 1, 1.0),
        ("integer", 7.0, 7),
        ("boolean", 1, True),
        ("boolean", False, False),
        ("datetime", "2026-11-21T10:00:00+02:00", pd.Timestamp("2026-11-21 08:00")),
        ("binary", "aGk=", b"hi"),
    ],
)
def test_other_kinds_of_columns_are_read(kind: str, value: object, expected: object) -> None:
    body = json.dumps({"instances": [[value]]}).encode()
    assert parse_request(body, "application/json", [Column("c", kind)]).frame["c"].tolist() == [expected]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("float", 1e39),
        ("integer", 2**31),
        ("boolean", 2),
        ("boolean", "yes"),
        ("datetime", "tomorrow?"),
        ("datetime", "NaT"),
        ("datetime", "9999999-01-01"),
        ("datetime", 3),
        ("binary", "not base64"),
    ],
)
def test_values_that_other_kinds_cannot_hold_are_refused(kind: str, value: object) -> None:
    body = json.dumps({"instances": [[value]]}).encode()
    with pytest.raises(BadInput, match="column 'c'"):
        parse_request(body, "application/json", [Column("c", kind)])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return churn_model(tmp_path_factory.mktemp("serve") / "model", 5)


@pytest.fixture(scope="module")
def client(model: Path) -> Iterator[TestClient]:
    with TestClient(create_app(scoring.load_model(model, "7")), raise_server_exceptions=False) as opened:
        yield opened


def ask(client: TestClient, body: bytes | str, kind: str = "application/json") -> httpx.Response:
    return client.post("/invocations", content=body, headers={"content-type": kind})


@pytest.mark.slow
def test_the_answer_is_the_models_own(client: TestClient, model: Path) -> None:
    import mlflow.pyfunc

    answer = ask(client, REQUEST)
    expected = mlflow.pyfunc.load_model(str(model)).predict(frame()).tolist()
    assert answer.status_code == 200
    assert answer.json() == {"predictions": expected}
    assert answer.headers["X-Model-Version"] == "7"
    assert answer.headers["X-Model-Digest"] == folder_digest(model)
    passed_on = answer.headers["X-Amzn-SageMaker-Custom-Attributes"]
    assert passed_on == f"version=7;digest={folder_digest(model)}", "all that SageMaker passes on to callers"


@pytest.mark.slow
def test_the_column_that_says_who_a_row_is_about_may_be_sent_where_it_is_named(client: TestClient, model: Path) -> None:
    sent = json.dumps({"dataframe_split": {"columns": [*COLUMNS, "who"], "data": [[*row, "c1"] for row in ROWS]}})
    assert "does not know the column 'who'" in ask(client, sent).json()["error"]
    with TestClient(create_app(scoring.load_model(model, "7"), "who")) as named:
        assert ask(named, sent).json() == ask(client, REQUEST).json()
    with TestClient(create_app(scoring.load_model(model, "7", row_key=KEY), "of the release")) as keyed:
        when = sent.replace('"who"]', '"who", "when"]').replace('"c1"]', f'"c1", "{AT}"]')
        assert ask(keyed, when).json() == ask(client, REQUEST).json(), "what the signature names comes first"
        assert ask(keyed, when.replace(AT, "yesterday")).status_code == 400


@pytest.mark.slow
def test_csv_and_json_are_answered_alike(client: TestClient) -> None:
    lines = [",".join("" if value is None else str(value) for value in row) for row in ROWS]
    assert ask(client, CSV + "\n".join(lines), "text/csv").json() == ask(client, REQUEST).json()


@pytest.mark.slow
def test_ping_and_version_say_what_is_served(client: TestClient, model: Path) -> None:
    assert client.get("/ping").status_code == 200
    said = client.get("/version").json()
    assert (said["version"], said["digest"]) == ("7", folder_digest(model))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "kind", "status", "words"),
    [
        pytest.param(records(contract=3), "application/json", 400, "'contract', row 1", id="wrong type"),
        pytest.param("x", "image/png", 415, "image/png", id="content type"),
        pytest.param(b"1" * (26 * 1024 * 1024), "text/csv", 413, "26,214,400 bytes", id="too large"),
        pytest.param(
            json.dumps({"instances": [ROWS[0]], "params": {"temperature": 1}}),
            "application/json",
            400,
            "takes no params; got \\['temperature'\\]",
            id="params",
        ),
    ],
)
def test_bad_requests_get_json_with_the_reason(
    client: TestClient, body: bytes | str, kind: str, status: int, words: str
) -> None:
    answer = ask(client, body, kind)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert re.search(words, answer.json()["error"])
    assert "Traceback" not in answer.text


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nope", 404), ("GET", "/invocations", 405)])
def test_unknown_calls_get_json_too(client: TestClient, method: str, path: str, status: int) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, "error" in answer.json()) == (status, True)


FAILURES = {
    "the model raises": ("raise RuntimeError('no memory\\nfor this')", 500, "RuntimeError: no memory"),
    "the model refuses a value": ("raise ValueError('unknown category')", 400, "unknown category"),
    "the model answers NaN": ("return [float('nan')]", 500, "NaN or infinity"),
    "the model answers what JSON cannot hold": ("return [object()]", 500, "the model failed"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("code", "status", "words"), FAILURES.values(), ids=FAILURES.keys())
def test_a_failing_model_is_told_from_bad_input(tmp_path: Path, code: str, status: int, words: str) -> None:
    model = scoring.load_model(python_code_model(tmp_path / "model", at_predict=code))
    reply = model.score(REQUEST.encode(), "application/json")
    assert reply.status == status
    assert words in json.loads(reply.body)["error"]
    assert "Traceback" not in reply.body.decode()


@pytest.mark.slow
def test_a_model_without_named_columns_is_served_by_mlflows_own_parser(tmp_path: Path) -> None:
    import mlflow.sklearn
    from sklearn.linear_model import LinearRegression

    line = LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0])
    mlflow.sklearn.save_model(line, str(tmp_path / "model"), serialization_format="skops", pip_requirements=[])
    model = scoring.load_model(tmp_path / "model")
    good = model.score(b'{"inputs": [[3.0]]}', "application/json")
    assert json.loads(good.body)["predictions"] == [pytest.approx(6.0)]
    for body in (b"", b"{", b"[]", b'{"inputs": "text"}', b'{"dataframe_split": 3}', b'{"instances": []}'):
        bad = model.score(body, "application/json")
        assert bad.status == 400, body
        assert "Traceback" not in bad.body.decode()


@pytest.mark.slow
def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(scoring.UnservableModel, match="no file MLmodel"):
        scoring.load_model(tmp_path)
    (tmp_path / "MLmodel").write_text("flavors: {sklearn: {}}")
    with pytest.raises(scoring.UnservableModel, match="describes no Python model"):
        scoring.load_model(tmp_path)


@pytest.mark.slow
def test_a_model_with_modules_of_its_own_is_refused_where_models_share_a_process(tmp_path: Path, model: Path) -> None:
    folder = shutil.copytree(model, tmp_path / "model")
    text = (folder / "MLmodel").read_text().replace("  python_function:\n", "  python_function:\n    code: code\n")
    (folder / "MLmodel").write_text(text)
    with pytest.raises(scoring.UnservableModel, match="modules of its own"):
        scoring.load_model(folder, allow_custom_code=False)


def test_a_model_that_is_not_the_one_that_was_approved_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "MLmodel").write_text("flavors: {}")
    monkeypatch.setenv("SM_MODEL_DIR", str(tmp_path))
    monkeypatch.setenv("RATCHET_MODEL_DIGEST", "0" * 64)
    assert serve.main() == 1
    assert f"expected {'0' * 64}: it is not what was approved" in caplog.text


@pytest.mark.slow
def test_the_container_folder_alone_serves_by_sagemakers_contract(tmp_path: Path, model: Path) -> None:
    before = folder_digest(model)
    keyed = signed(shutil.copytree(model, tmp_path / "keyed"), KEY)
    shutil.copytree(ROOT / "runtime", tmp_path / "runtime")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        "PATH": os.environ["PATH"],
        "SM_MODEL_DIR": str(model),
        "RATCHET_TRUSTED_KEYS": MODELS.public_key_line,
        "RATCHET_SIGNATURE": str(signature_file(keyed)),
        "SAGEMAKER_BIND_TO_PORT": str(port),
        "RATCHET_BIND_HOST": "127.0.0.1",
    }
    command = [sys.executable, str(tmp_path / "runtime" / "serve.py"), "serve"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment)
    try:
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/ping", process), what="the start of the server")
        url, kind = f"http://127.0.0.1:{port}/invocations", {"content-type": "application/json"}
        assert len(httpx.post(url, content=REQUEST, headers=kind, timeout=60).json()["predictions"]) == len(ROWS)
        with_key = json.dumps({"dataframe_records": [GOOD | {WHO: "c-1", WHEN: AT}]})
        assert httpx.post(url, content=with_key, headers=kind, timeout=60).status_code == 200
        without_zone = with_key.replace("+02:00", "")
        assert httpx.post(url, content=without_zone, headers=kind, timeout=60).status_code == 400
        foreign = httpx.post(url, content=REQUEST, headers={**kind, "origin": "http://evil.example"}, timeout=60)
        assert foreign.status_code == 403
        process.terminate()
        assert process.wait(60) in (0, -15)
    finally:
        process.kill()
        process.wait()
    assert folder_digest(model) == before, "serving changes nothing of the model"


@pytest.mark.slow
def test_the_server_of_a_preflight_ends_when_its_parent_dies(model: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "SM_MODEL_DIR": str(model),
        "RATCHET_TRUSTED_KEYS": MODELS.public_key_line,
        "SAGEMAKER_BIND_TO_PORT": "0",
        "RATCHET_BIND_HOST": "127.0.0.1",
        "RATCHET_STOP_WITH_STDIN": "1",
    }
    command = [sys.executable, str(ROOT / "runtime" / "serve.py")]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE) as process:
        assert process.stdin
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.stdin.close()
        assert process.wait(60) == 0


@pytest.mark.slow
def test_the_scoring_server_imports_nothing_else_of_ours() -> None:
    code = "import sys, runtime.serve; print(sorted({m.split('.')[0] for m in sys.modules}))"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not {"blocks", "tasks", "flows", "prefect"} & set(json.loads(said.replace("'", '"')))
