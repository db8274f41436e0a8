"""The inference log of the model server: it follows the release, has the caller's id, and omits the golden request."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from blocks.common.errors import NotFound
from blocks.endpoints.base import InferenceLogPolicy
from blocks.endpoints.release_store import ReleaseStore
from runtime.scoring import ScoringResponse
from runtime.signatures import RowKey
from services.model_server.endpoints import ServedEndpoints
from services.model_server.recording import row_count
from services.model_server.server import create_app
from tests.fixtures.scoring import REQUEST, TOKEN, churn_model, release
from tests.fixtures.signing_keys import MODELS, signed

ADMIN = {"Authorization": f"Bearer {TOKEN}"}
ASKED = '{"dataframe_records": [{"tenure": 34, "charges": 20.5, "flag": 1, "contract": "month", "customer": "c-1"}]}'
CSV = "customer,tenure,charges,flag,contract\n7,34,20.5,1,month\n8,1,,0,year\n"
CSV_AT = """at,customer,tenure,charges,flag,contract
2026-01-31T08:00:00+01:00,7,34,20.5,1,month
2026-01-31T08:00:00Z,7,34,20.5,1,month
"""
pytestmark = pytest.mark.slow


@dataclass
class Logging:
    """A model server with one model, which logs as the last release request said."""

    client: TestClient
    order: dict[str, Any]

    def release(self, log: dict[str, Any] | None) -> None:
        answer = self.client.put("/admin/endpoints/churn", json={**self.order, "log": log}, headers=ADMIN)
        assert answer.status_code == 200, answer.text

    def ask(self, body: str = ASKED, kind: str = "application/json", **headers: str) -> httpx.Response:
        return self.client.post("/endpoints/churn/invocations", content=body, headers={"content-type": kind, **headers})

    def collect(self) -> list[dict[str, Any]]:
        """Return the lines of all segments, and remove these."""
        found = []
        for name in self.client.get("/admin/endpoints/churn/log", headers=ADMIN).json():
            path = f"/admin/endpoints/churn/log/{name}"
            content = gzip.decompress(self.client.get(path, headers=ADMIN).content)
            found += [json.loads(line) for line in content.splitlines()]
            assert self.client.delete(path, headers=ADMIN).status_code == 204
            assert self.client.get(path, headers=ADMIN).status_code == 404
        return found


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logging]:
    folder = tmp_path_factory.mktemp("state")
    yield from serving(folder, churn_model(folder / "models" / "3", 3))


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logging]:
    """A model whose signature names entity and time."""
    folder = tmp_path_factory.mktemp("keyed")
    yield from serving(folder, signed(churn_model(folder / "models" / "3", 3), RowKey("customer", "at")))


def serving(folder: Path, model: Path) -> Iterator[Logging]:
    made = release(model, "3")
    golden = {"request": made.golden_example.request, "expected_predictions": made.golden_example.expected_predictions}
    order = {"version": "3", "artifact": str(made.artifact), "digest": made.digest, "golden": golden}
    with TestClient(
        create_app(ServedEndpoints(folder, keys=[MODELS.public_key_line]), TOKEN), base_url="http://127.0.0.1"
    ) as client:
        yield Logging(client, order)


def test_a_release_without_rules_logs_nothing_and_knows_no_key(host: Logging) -> None:
    host.release(None)
    assert host.ask().status_code == 400
    assert (
        host.ask(CSV.replace("customer,", "").replace("7,34", "34").replace("8,1", "1"), "text/csv").status_code == 200
    )
    assert host.collect() == []
    assert host.client.get("/endpoints/churn").json()["logging"] is False


def test_a_request_is_logged_with_its_key_its_id_and_its_answer(host: Logging) -> None:
    host.release({"entity_column": "customer"})
    answer = host.ask(**{"X-Amzn-SageMaker-Inference-Id": "order-17"})
    assert answer.status_code == 200
    assert answer.headers["X-Request-Id"] == "order-17"
    (line,) = host.collect()
    assert (line["id"], line["version"], line["rows"]) == ("order-17", "3", 1)
    assert line["columns"]["customer"] == ["c-1"] and line["columns"]["contract"] == ["month"]
    assert line["answer"] == answer.json()


def test_a_csv_file_may_hold_the_key_and_is_answered_row_by_row(host: Logging) -> None:
    host.release({"entity_column": "customer"})
    answer = host.ask(CSV, "text/csv")
    assert len(answer.json()["predictions"]) == 2
    (line,) = host.collect()
    assert (line["rows"], line["columns"]["customer"], line["columns"]["charges"]) == (2, ["7", "8"], ["20.5", None])
    assert len(line["id"]) == 32, "a request without an id gets one"


def test_new_rules_of_the_version_that_serves_count_at_once(host: Logging) -> None:
    host.release(
        {"entity_column": "customer", "excluded_columns": ["customer", "tenure"], "hashed_columns": ["contract"]}
    )
    assert host.ask().status_code == 200
    (line,) = host.collect()
    assert set(line["columns"]) == {"charges", "flag", "contract"}
    assert line["columns"]["contract"] != ["month"]


def test_a_model_that_was_signed_with_its_row_key_takes_entity_and_time_and_logs_them(keyed: Logging) -> None:
    keyed.release({"entity_column": "customer"})
    assert keyed.ask(CSV_AT, "text/csv").status_code == 200
    (line,) = keyed.collect()
    assert line["columns"]["customer"] == ["7", "7"]
    assert line["columns"]["at"] == ["2026-01-31T07:00:00+00:00", "2026-01-31T08:00:00+00:00"]
    refused = keyed.ask(CSV_AT.replace("+01:00", ""), "text/csv")
    assert refused.status_code == 400 and "column 'at', row 0" in refused.json()["error"]
    assert keyed.collect() == []


def test_the_privacy_rules_hold_for_entity_and_time(keyed: Logging) -> None:
    keyed.release({"excluded_columns": ["at"], "hashed_columns": ["customer"]})
    assert keyed.ask(CSV_AT, "text/csv").status_code == 200
    (line,) = keyed.collect()
    assert "at" not in line["columns"]
    one, other = line["columns"]["customer"]
    assert one == other and len(one) == 64


def test_entity_and_time_are_accepted_where_nothing_is_logged(keyed: Logging) -> None:
    keyed.release(None)
    assert keyed.ask(CSV_AT, "text/csv").status_code == 200
    assert keyed.collect() == []


def test_neither_the_golden_request_nor_a_refused_one_is_traffic(host: Logging) -> None:
    host.release({"entity_column": "customer"})
    assert host.ask(REQUEST).status_code == 200
    assert host.ask("{}").status_code == 400
    assert host.collect() == []


@pytest.mark.parametrize("key", ["1e300", "true", "[1]"])
def test_a_key_is_text_or_a_whole_number(host: Logging, key: str) -> None:
    host.release({"entity_column": "customer"})
    answer = host.ask(ASKED.replace('"c-1"', key))
    assert answer.status_code == 400
    assert "customer" in answer.json()["error"] and "row 0" in answer.json()["error"]


def test_an_id_that_would_break_a_header_is_replaced(host: Logging) -> None:
    assert len(host.ask(**{"X-Request-Id": "two words"}).headers["X-Request-Id"]) == 32
    host.collect()


def test_the_log_is_for_whoever_has_the_token_and_stays_in_its_folder(host: Logging) -> None:
    assert host.client.get("/admin/endpoints/churn/log").status_code == 401
    assert host.client.get("/admin/endpoints/churn/log/..%2f..%2fendpoints.json", headers=ADMIN).status_code in (
        400,
        404,
    )
    assert host.client.get("/admin/endpoints/churn/log/hash.key", headers=ADMIN).status_code == 400


def test_people_see_what_was_logged_and_dropped(host: Logging) -> None:
    host.release({"entity_column": "customer"})
    host.ask()
    host.collect()
    assert host.client.get("/endpoints/churn").json()["logged"] >= 1
    page = host.client.get("/").text
    assert "Rows logged" in page and "Rows dropped" in page


def test_a_kept_release_keeps_its_rules_and_takes_new_ones(tmp_path: Path) -> None:
    store, folder = ReleaseStore(tmp_path / "store"), tmp_path / "model"
    folder.mkdir()
    (folder / "MLmodel").write_text("flavors: {}")
    for rules in (InferenceLogPolicy("customer", ("a",), ("b",)), InferenceLogPolicy("customer"), None):
        made = release(folder, "1", [1])
        kept = store.save(type(made)(made.endpoint, "1", folder, made.digest, made.golden_example, rules))
        store.mark_deployed(kept)
        assert kept.log_policy == rules
        assert store.deployed_release("churn", "1").log_policy == rules
    record = tmp_path / "store" / "churn" / "1" / "release.json"
    record.write_text(record.read_text().replace('"log_policy":null', '"log_policy":{"leave_out":["a"]}'))
    with pytest.raises(NotFound):  # a rule that is not known is not skipped: the column would be logged
        store.deployed_release("churn", "1")


def test_an_answer_of_a_model_without_named_columns_is_counted_by_its_predictions() -> None:
    assert row_count(ScoringResponse(200, b'{"predictions": [1, 2, 3]}')) == 3
    assert row_count(ScoringResponse(200, b'{"predictions": {"a": 1}}')) == 0
    assert row_count(ScoringResponse(200, b'{"predictions": [1]}', sent_values={"a": [1, 2]})) == 2
