"""The model server: who may change what, what it reports about itself, and that AWS's own client can call it."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from fastapi.testclient import TestClient

from services.model_server import state
from services.model_server.__main__ import InvalidTokenFile, main, read_token
from services.model_server.endpoints import ServedEndpoints
from services.model_server.pages import render_page
from services.model_server.server import access_error, create_app
from tests.fixtures.scoring import REQUEST, ROWS, TOKEN, ModelServer, churn_model, host, release, token_file
from tests.fixtures.signing_keys import MODELS

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("", 401),
        (TOKEN, 401),
        ("Bearer", 401),
        ("Bearer ", 401),
        (f"Basic {TOKEN}", 401),
        ("Bearer wrong", 403),
        (f"Bearer {TOKEN}x", 403),
        (f"Bearer {TOKEN[:-1]}", 403),
        ("Bearer ünicode", 403),
    ],
)
def test_only_the_token_opens(header: str | None, status: int) -> None:
    refused = access_error(TOKEN, header)
    assert refused and refused[0] == status
    assert TOKEN not in refused[1]
    assert access_error(TOKEN, f"Bearer {TOKEN}") is None


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [(TOKEN, 0o644, "chmod 600"), (TOKEN, 0o620, "chmod 600"), ("short", 0o600, "at least 16"), ("", 0o600, "16")],
)
def test_a_token_file_that_guards_nothing_is_refused(tmp_path: Path, content: str, mode: int, words: str) -> None:
    path = tmp_path / "token"
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(InvalidTokenFile, match=words):
        read_token(path)


def test_the_host_does_not_start_without_a_token(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--port", "0", "--state", str(tmp_path), "--token-file", str(tmp_path / "none")]
    assert main(arguments) == 2
    assert "token file" in capsys.readouterr().err


def test_two_hosts_do_not_share_a_state_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with state.lock_state(tmp_path):
        arguments = ["--port", "0", "--state", str(tmp_path), "--token-file", str(token_file(tmp_path))]
        assert main(arguments) == 2
    assert "another model server" in capsys.readouterr().err


def test_the_state_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = {"churn": state.EndpointState(live=placement("1"))}
    state.write_state(tmp_path, before)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        state.write_state(tmp_path, {"churn": state.EndpointState(live=placement("2"))})
    assert state.read_state(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["endpoints.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"churn": {"live": {"version": "1"}}}'])
def test_a_broken_state_is_not_taken_for_a_new_host(tmp_path: Path, text: str) -> None:
    (tmp_path / "endpoints.json").write_text(text)
    with pytest.raises(ValueError, match=r"JSON|valid|Field"):
        ServedEndpoints(tmp_path).start()


def test_the_page_escapes_what_it_shows() -> None:
    status = placement("1").model_dump() | {"endpoint": "<b>x", "serving": False, "failure": '"><script>'}
    counts = {"requests": 1234, "refused": 0, "failed": 0, "logging": True, "logged": 7, "dropped": 1}
    shown = render_page([status | counts | {"standby": None, "log_problem": '"><script>'}])
    assert "1,234" in shown
    assert "<script>" not in shown and "<b>x" not in shown
    assert "http://" not in shown and "https://" not in shown, "no external assets"


def placement(version: str) -> state.ReleasedVersion:
    golden = {"request": "{}", "expected_predictions": "[1]"}
    fields = {"version": version, "artifact": "/model", "digest": "0" * 64, "golden": golden}
    return state.ReleasedVersion.model_validate(fields | {"since": "2026-11-21T10:00:00Z"})


@dataclass
class Local:
    """A model server in this process, over a folder with two models."""

    client: TestClient
    fleet: ServedEndpoints
    folder: Path
    orders: list[dict[str, Any]]

    def put(self, order: dict[str, Any], name: str = "churn", token: str = TOKEN) -> httpx.Response:
        return self.client.put(f"/admin/endpoints/{name}", json=order, headers={"Authorization": f"Bearer {token}"})

    def ask(self, name: str = "churn", body: str = REQUEST) -> httpx.Response:
        return self.client.post(f"/endpoints/{name}/invocations", content=body, headers=JSON)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    folder = tmp_path_factory.mktemp("state")
    orders = [order(churn_model(folder / "models" / str(n), n), str(n)) for n in (3, 5)]
    fleet = ServedEndpoints(folder, keys=[MODELS.public_key_line])
    with TestClient(create_app(fleet, TOKEN), base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield Local(client, fleet, folder, orders)


def order(model: Path, version: str) -> dict[str, Any]:
    made = release(model, version)
    golden = {"request": made.golden_example.request, "expected_predictions": made.golden_example.expected_predictions}
    return {"version": version, "artifact": str(model), "digest": made.digest, "golden": golden}


@pytest.mark.slow
def test_a_release_serves_and_the_one_before_stands_by(local: Local) -> None:
    assert local.put(local.orders[0]).json()["version"] == "3"
    said = local.put(local.orders[1]).json()
    assert (said["version"], said["standby"], said["serving"]) == ("5", "3", True)
    assert said == local.client.get("/endpoints/churn").json() == local.client.get("/endpoints").json()[0]
    before = local.fleet.endpoints()["churn"].live
    assert local.put(local.orders[1]).json()["since"] == said["since"]
    assert local.fleet.endpoints()["churn"].live is before, "a repeated order changes nothing"
    answer = local.ask()
    assert (answer.status_code, answer.headers["X-Model-Version"]) == (200, "5")
    assert json.loads(local.orders[1]["golden"]["expected_predictions"]) == [
        pytest.approx(row, abs=1e-9) for row in answer.json()["predictions"]
    ]


@pytest.mark.slow
def test_requests_and_errors_are_counted_and_shown(local: Local) -> None:
    local.put(local.orders[0], "counted")
    for body in (REQUEST, REQUEST, "{"):
        local.ask("counted", body)
    said = local.client.get("/endpoints/counted").json()
    assert (said["requests"], said["refused"], said["failed"]) == (3, 1, 0)
    shown = local.client.get("/")
    assert "counted" in shown.text and shown.headers["content-type"].startswith("text/html")


def changed(local: Local, **fields: object) -> dict[str, Any]:
    return local.orders[1] | fields


@pytest.mark.slow
@pytest.mark.parametrize("token", ["", "wrong", TOKEN + "x"])
def test_without_the_token_nothing_changes(local: Local, token: str) -> None:
    local.put(local.orders[0], "guarded")
    assert local.put(local.orders[1], "guarded", token).status_code in (401, 403)
    assert local.put(local.orders[1], "guarded-new", token).status_code in (401, 403)
    assert local.client.put("/admin/endpoints/guarded", content="{").status_code == 401
    assert local.client.get("/admin/anything").status_code == 401, "denied by default"
    assert local.client.get("/endpoints/guarded").json()["version"] == "3"
    assert local.client.get("/endpoints/guarded-new").status_code == 404


@pytest.mark.slow
def test_orders_that_cannot_be_carried_out_leave_the_live_version(local: Local, tmp_path: Path) -> None:
    local.put(local.orders[0], "kept")
    model = Path(local.orders[1]["artifact"])
    link = local.folder / "link"
    link.symlink_to(tmp_path)
    (tmp_path / "MLmodel").touch()
    cases: list[tuple[dict[str, Any], int, str]] = [
        (changed(local, artifact=str(tmp_path)), 400, "not inside the state folder"),
        (changed(local, artifact=str(link)), 400, "not inside the state folder"),
        (changed(local, artifact=f"{local.folder}/../../etc"), 400, "not inside the state folder"),
        (changed(local, artifact=str(local.folder / "none")), 422, "no file MLmodel"),
        (changed(local, artifact="\0"), 422, "is no path"),
        (changed(local, artifact=str(local.folder / ("x" * 300))), 422, "is no path"),
        (changed(local, digest="f" * 64), 409, "has the digest"),
        (changed(local, version="3"), 409, "a version never changes"),
        (changed(local, digest="short"), 400, "body.digest"),
        (changed(local, version="../3"), 400, "body.version"),
        (changed(local, more=1), 400, "body.more"),
        (changed(local, golden={"request": REQUEST, "expected_predictions": "[[0.5, 0.5]]"}), 422, "predictions"),
        (changed(local, golden={"request": "{}", "expected_predictions": "[1]"}), 422, "status 400"),
        ({}, 400, "body.version"),
    ]
    for wrong, status, words in cases:
        answer = local.put(wrong, "kept")
        assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text
    assert local.put(local.orders[0], "bad name!").status_code == 400
    assert local.client.get("/endpoints/kept").json()["version"] == "3"
    assert local.ask("kept").headers["X-Model-Version"] == "3"
    assert state.read_state(local.folder)["kept"].live.version == "3"
    assert model.exists()


@pytest.mark.slow
def test_a_link_inside_an_artifact_is_refused(local: Local) -> None:
    model = churn_model(local.folder / "models" / "linked", 2)
    good = order(model, "2")
    content = (model / "conda.yaml").rename(local.folder / "conda.yaml")
    (model / "conda.yaml").symlink_to(content)
    answer = local.put(good, "linked")
    assert (answer.status_code, "link conda.yaml" in answer.json()["error"]) == (400, True)


@pytest.mark.slow
def test_a_full_disk_leaves_the_live_version(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    local.put(local.orders[0], "full")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        answer = local.put(local.orders[1], "full")
        assert (answer.status_code, "No space left" in answer.json()["error"]) == (503, True)
    assert local.ask("full").headers["X-Model-Version"] == "3"
    assert local.put(local.orders[1], "full").status_code == 200


@pytest.mark.slow
def test_unknown_endpoints_and_foreign_host_names_are_refused(local: Local) -> None:
    assert local.ask("nobody").status_code == 404
    assert local.client.get("/endpoints/nobody").status_code == 404
    assert local.client.get("/endpoints", headers={"host": "evil.example"}).status_code == 403


@pytest.mark.slow
def test_the_calls_are_described_in_openapi(local: Local) -> None:
    paths = local.client.get("/openapi.json").json()["paths"]
    assert {"/ping", "/endpoints", "/endpoints/{name}", "/endpoints/{name}/invocations"} <= set(paths)
    assert paths["/admin/endpoints/{name}"]["put"]["security"]


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    folder = tmp_path_factory.mktemp("process")
    with host(folder / "state") as started:
        started.endpoint().switch(release(churn_model(folder / "model", 3), "1"))
        yield started


@pytest.mark.slow
def test_awss_own_client_asks_the_host(process: ModelServer) -> None:
    boto3 = pytest.importorskip("boto3")
    from botocore.exceptions import ClientError

    runtime = boto3.client(
        "sagemaker-runtime",
        endpoint_url=process.url,
        region_name="eu-central-1",
        aws_access_key_id="none",
        aws_secret_access_key="none",  # noqa: S106 - the model server needs none
    )
    answer = runtime.invoke_endpoint(EndpointName="churn", ContentType="application/json", Body=REQUEST)
    assert len(json.loads(answer["Body"].read())["predictions"]) == len(ROWS)
    with pytest.raises(ClientError, match="'tenure'"):
        runtime.invoke_endpoint(EndpointName="churn", ContentType="text/csv", Body="charges\n1\n")
    with pytest.raises(ClientError, match="no endpoint 'nobody'"):
        runtime.invoke_endpoint(EndpointName="nobody", ContentType="application/json", Body=REQUEST)


@pytest.mark.slow
def test_the_host_listens_on_this_machine_alone(process: ModelServer) -> None:
    listening = [c.laddr.ip for c in psutil.Process(process.process.pid).net_connections() if c.status == "LISTEN"]
    assert listening == ["127.0.0.1"]
