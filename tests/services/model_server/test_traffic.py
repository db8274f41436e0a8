"""The model server's traffic counts: bounded in size, kept over restarts, and never an obstacle to a prediction."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from blocks.records.traffic import TrafficInterval, latency_bin
from services.model_server.endpoints import ServedEndpoints
from services.model_server.recording import RETENTION, TrafficCounter
from services.model_server.server import create_app
from tests.fixtures.scoring import REQUEST, TOKEN, churn_model, release
from tests.fixtures.signing_keys import MODELS

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC).timestamp()


class Clock:
    """A clock that a test moves."""

    now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("milliseconds", "expected"), [(0.0, -10), (0.1, -10), (1.0, 0), (1.01, 1), (10, 10), (11, 11), (1e9, 50)]
)
def test_an_answers_time_falls_into_a_tenth_of_a_decade(milliseconds: float, expected: int) -> None:
    assert latency_bin(milliseconds) == expected


def test_answers_are_counted_by_minute_and_by_hour(tmp_path: Path) -> None:
    clock = Clock()
    meter = TrafficCounter(tmp_path, clock)
    for status, later in ((200, 0), (400, 30), (504, 61)):
        clock.now = NOON + later
        meter.count("churn", status, 12.0)
    noon = datetime.fromtimestamp(NOON, UTC)
    assert meter.read("churn") == [
        TrafficInterval(noon, 3600, 3, 1, 1, {11: 3}),
        TrafficInterval(noon, 60, 2, 1, 0, {11: 2}),
        TrafficInterval(noon.replace(minute=1), 60, 1, 0, 1, {11: 1}),
    ]
    assert meter.read("other") == []


def test_counts_outlive_the_host_and_old_ones_are_forgotten(tmp_path: Path) -> None:
    clock = Clock()
    meter = TrafficCounter(tmp_path, clock)
    meter.count("churn", 200, 12.0)
    meter.save()
    clock.now = NOON + 4 * 3600
    again = TrafficCounter(tmp_path, clock)
    again.start()
    assert [each.interval_seconds for each in again.read("churn")] == [3600], "minutes are kept for three hours"
    clock.now = NOON + 32 * 86400
    assert again.read("churn") == []
    again.stop()


def test_memory_stays_bounded_over_years_of_traffic(tmp_path: Path) -> None:
    clock = Clock()
    meter = TrafficCounter(tmp_path, clock)
    for hour in range(3000):
        clock.now = NOON + hour * 3600
        meter.count("churn", 200, 1.0)
    assert len(meter._series["churn"]) <= sum(RETENTION.values())


@pytest.mark.parametrize("content", ["", "{", '[{"start": "never"}]'])
def test_counts_that_cannot_be_read_begin_anew(tmp_path: Path, content: str) -> None:
    (tmp_path / "churn.json").write_text(content)
    meter = TrafficCounter(tmp_path)
    meter.start()
    meter.count("churn", 200, 1.0)
    meter.stop()
    assert json.loads((tmp_path / "churn.json").read_text())[0]["requests"] == 1


def test_a_disk_that_refuses_costs_no_answer_and_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "traffic").write_text("a file where the folder should be")
    meter = TrafficCounter(tmp_path / "traffic")
    meter.count("churn", 200, 1.0)
    meter.save()
    (tmp_path / "traffic").unlink()
    meter.save()
    assert (tmp_path / "traffic" / "churn.json").exists()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("state")
    made = release(churn_model(folder / "models" / "3", 3), "3")
    golden = {"request": made.golden_example.request, "expected_predictions": made.golden_example.expected_predictions}
    order = {"version": "3", "artifact": str(made.artifact), "digest": made.digest, "golden": golden}
    app = create_app(ServedEndpoints(folder, keys=[MODELS.public_key_line]), TOKEN, clock=Clock())
    with TestClient(app, base_url="http://127.0.0.1") as client:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert client.put("/admin/endpoints/churn", json=order, headers=headers).status_code == 200
        yield client


@pytest.mark.slow
def test_the_host_counts_what_it_is_asked_but_not_the_golden_request(client: TestClient) -> None:
    json_rows = {"content-type": "application/json"}
    for body in (REQUEST, REQUEST.replace("34", "35", 1), "{}"):
        client.post("/endpoints/churn/invocations", content=body, headers=json_rows)
    hour = client.get("/endpoints/churn/traffic").json()[0]
    assert (hour["requests"], hour["client_errors"], hour["server_errors"]) == (2, 1, 0)
    assert sum(hour["latency_bins"].values()) == 2
    assert client.get("/endpoints/none/traffic").status_code == 404
