"""The dashboard in a real browser, from the disk and over HTTP: laid out, without console errors, loads nothing."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from services.model_server.endpoints import ServedEndpoints
from services.model_server.server import create_app
from tasks.dashboard.drawing import dashboard_html
from tests.fixtures.browser import RenderedPage, browser, open_page
from tests.fixtures.dashboard_cases import blank, busy, unreached
from tests.fixtures.scoring import TOKEN

pytestmark = pytest.mark.slow
MEASURE = """<script>onload = () => {
  const shown = [...document.querySelectorAll("section")].map(each => {
    const box = each.getBoundingClientRect();
    return each.id + ":" + (box.width > 200 && box.height > 40 && getComputedStyle(each).visibility === "visible");
  });
  const wide = document.documentElement.scrollWidth <= innerWidth;
  document.body.dataset.seen = `${shown.join(" ")} fits:${wide} ${innerWidth}`;
}</script>"""
SECTIONS = ("serving", "alerts", "drift", "quality", "traffic", "data", "cost", "schedule")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    browser()
    folder = tmp_path_factory.mktemp("pages")
    for name, make in {"busy": busy, "blank": blank, "unreached": unreached}.items():
        (folder / f"{name}.html").write_text(dashboard_html(make()))
    return folder


@pytest.fixture(scope="module")
def served(pages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    app = create_app(ServedEndpoints(tmp_path_factory.mktemp("state")), TOKEN, dashboards=pages)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(timeout=60)


def complaints(seen: RenderedPage) -> list[str]:
    """Return the console messages of the page: errors, and what its policy forbade."""
    return re.findall(r"CONSOLE.*|Refused to .*|violates .*", seen.console)


def is_picture_with_content(seen: RenderedPage) -> bool:
    """Return whether the screenshot has more than one colour."""
    from PIL import Image

    with Image.open(seen.picture) as picture:
        return len(picture.convert("RGB").resize((160, 300)).getcolors(48_000) or []) > 20


@pytest.mark.parametrize("width", [1280, 500])
@pytest.mark.parametrize("name", ["busy", "blank", "unreached"])
def test_the_page_from_the_disk_is_laid_out_on_wide_and_narrow_screens(
    pages: Path, tmp_path: Path, name: str, width: int
) -> None:
    """The script that measures is the test's own: the page's policy, which forbids all scripts, is removed for it."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", (pages / f"{name}.html").read_text())
    (tmp_path / "measured.html").write_text(text.replace("</body>", f"{MEASURE}</body>"))
    seen = open_page((tmp_path / "measured.html").as_uri(), tmp_path, width=width)
    (found,) = re.findall(r'<body data-seen="(.*?)">', seen.dom)
    assert found == f"{' '.join(f'{section}:true' for section in SECTIONS)} fits:true {width}"
    assert complaints(seen) == []


def test_the_page_from_the_disk_and_over_http_complains_of_nothing(pages: Path, served: str, tmp_path: Path) -> None:
    for place, address in {"disk": (pages / "busy.html").as_uri(), "http": f"{served}/dashboards/busy"}.items():
        (tmp_path / place).mkdir()
        seen = open_page(address, tmp_path / place)
        assert complaints(seen) == []
        assert "Drift over time" in seen.dom and "Max (second person)" in seen.dom
        assert is_picture_with_content(seen)


def test_a_script_that_got_into_a_page_would_not_run(pages: Path, served: str, tmp_path: Path) -> None:
    text = (pages / "busy.html").read_text().replace("</body>", "<script>document.title = 'ran'</script></body>")
    (pages / "attacked.html").write_text(text)
    (pages / "attacked-without-its-policy.html").write_text(re.sub(r"<meta http-equiv[^>]*>", "", text))
    for address in (
        (pages / "attacked.html").as_uri(),
        f"{served}/dashboards/attacked",
        f"{served}/dashboards/attacked-without-its-policy",
    ):
        seen = open_page(address, tmp_path)
        assert "<title>ran</title>" not in seen.dom
        assert any("script" in each for each in complaints(seen)), "and the browser says so"
