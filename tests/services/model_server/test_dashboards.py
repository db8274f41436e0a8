"""Dashboards over HTTP: read-only, only pages, and a policy that forbids scripts."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from services.model_server.endpoints import ServedEndpoints
from services.model_server.pages import MAX_PAGE_BYTES, read_page
from services.model_server.server import create_app
from tests.fixtures.scoring import TOKEN


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "churn.html").write_text("<p>churn</p>")
    (tmp_path / "pages" / "churn.json").write_text("{}")
    (tmp_path / "pages" / "index.html").write_text("<p>all</p>")
    (tmp_path / "secret.html").write_text("not for you")
    return tmp_path / "pages"


@pytest.fixture
def client(folder: Path, tmp_path: Path) -> Iterator[TestClient]:
    app = create_app(ServedEndpoints(tmp_path / "state"), TOKEN, dashboards=folder)
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "said"),
    [("/dashboards/churn", "churn"), ("/dashboards/churn.html", "churn"), ("/dashboards/", "all"),
     ("/dashboards/index.html", "all"), ("/dashboards", "all")],
)  # fmt: skip
def test_pages_are_shown_under_a_strict_policy(client: TestClient, path: str, said: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.text) == (200, f"<p>{said}</p>")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    for rule in ("default-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"):
        assert rule in policy
    assert "script-src" not in policy and "unsafe-eval" not in policy, "what is not named falls to 'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


OUTSIDE = (
    "/dashboards/../secret.html", "/dashboards/..%2fsecret.html", "/dashboards/%2e%2e/secret.html",
    "/dashboards/%2e%2e%2fsecret", "/dashboards/churn.json", "/dashboards/.churn",
    "/dashboards/..%5csecret", "/dashboards/%00", "/dashboards/churn%00.html", "/dashboards//etc/passwd",
    "/dashboards/%2fetc%2fpasswd", "/dashboards/churn/../../secret.html", "/dashboards/churn.html.html",
    "/dashboards/" + "a" * 300, "/dashboards/churn%0a", "/dashboards/ümlaut",
)  # fmt: skip


@pytest.mark.parametrize("path", OUTSIDE)
def test_nothing_else_of_the_disk_is_shown(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (400, 404)
    assert "not for you" not in answer.text
    assert answer.headers["content-type"] == "application/json"


def test_a_page_that_was_never_drawn_says_what_draws_it(client: TestClient) -> None:
    answer = client.get("/dashboards/none")
    assert answer.status_code == 404 and "a run of `monitor` renders it" in answer.json()["error"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_pages_are_only_read(client: TestClient, method: str, folder: Path) -> None:
    assert client.request(method, "/dashboards/churn", content=b"x").status_code == 405
    assert (folder / "churn.html").read_text() == "<p>churn</p>"


def test_another_host_name_is_refused(client: TestClient) -> None:
    assert client.get("/dashboards/churn", headers={"host": "evil.example"}).status_code == 403


def test_links_folders_pipes_and_huge_files_are_no_pages(folder: Path) -> None:
    (folder / "link.html").symlink_to(folder.parent / "secret.html")
    (folder / "folder.html").mkdir()
    os.mkfifo(folder / "pipe.html")
    with (folder / "huge.html").open("wb") as stream:
        stream.truncate(MAX_PAGE_BYTES + 1)
    assert [read_page(folder, name) for name in ("link", "folder", "pipe", "huge", "none")] == [None] * 5
    assert read_page(folder, "churn") == b"<p>churn</p>"


def test_a_host_without_dashboards_has_none(tmp_path: Path) -> None:
    with TestClient(create_app(ServedEndpoints(tmp_path), TOKEN), base_url="http://127.0.0.1") as client:
        assert client.get("/dashboards/churn").status_code == 404
