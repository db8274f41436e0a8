"""The page of a model, gathered and written: from fakes, whole or not at all, and never in anybody's way."""

import logging
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from blocks.common.errors import Unavailable
from blocks.endpoints.fake import FakeEndpoint
from blocks.endpoints.traffic import Traffic as Counted
from blocks.environment import Dashboards
from tasks.dashboard import drawing
from tasks.dashboard import tasks as dashboard
from tasks.dashboard.drawing import draw, list_of
from tasks.dashboard.facts import gather
from tasks.dashboard.rules.facts import NextRun, Serving, Unknown
from tasks.dashboard.tasks import draw_dashboard
from tasks.monitoring.collection import land_segments
from tasks.monitoring.reporting import tell_seen
from tasks.shared.monitoring_history import keep_look
from tasks.shared.rules.refusal import Refusal
from tests.promoted import promoted
from tests.tasks.monitoring.watched import DAY, MODEL, UNTIL, ask, ask_days, houses, looked, serving
from tests.tasks.shared.test_champion import NOW, World

PLANNED = (NextRun("watch_drift/price-nightly", UNTIL + DAY, False),)


@pytest.fixture(autouse=True)
def prefect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer for the Prefect server, which these tests do not start."""
    monkeypatch.setattr("tasks.dashboard.facts.next_runs", lambda model: PLANNED)
    monkeypatch.setattr(drawing, "load_model", lambda name: MODEL)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return serving(tmp_path)


def test_a_model_at_work_is_shown_with_all_that_is_recorded(world: World, tmp_path: Path) -> None:
    ask_days(world, 500, garden=1)
    seen = looked(world, tmp_path)
    keep_look(world, seen, UNTIL)
    tell_seen(world, seen, "", key="run-1", now=NOW)
    facts = gather(world, MODEL, NOW)
    assert isinstance(facts.serving, Serving)
    assert (facts.serving.release.version, facts.serving.answers) == ("1", "")
    assert [look.outcome for look in facts.looks] == ["Drift"]  # type: ignore[union-attr]
    assert [(e.event, e.lasts) for e in facts.episodes] == [("model.drift.detected", True)]  # type: ignore[union-attr]
    assert {d.name: sum(a.rows for a in d.landings) for d in facts.data} == {"houses": 3000, "houses-inference": 1500}  # type: ignore[union-attr]
    assert facts.schedule == PLANNED
    drawn = draw(world, "price", NOW)
    text = drawn.path.read_text()
    assert drawn.headline.startswith("Version 1 serves, but the endpoint answers with nothing; the last look")
    assert "found drift; 1 alert is open." in drawn.headline
    assert seen.sentence[:60] in text and "watch_drift/price-nightly" in text


def test_what_the_endpoint_counted_is_shown_rather_than_its_log(world: World) -> None:
    ask(world, houses(50))
    land_segments(world.endpoint(), world.lake(), MODEL.spec)
    by_log = gather(world, MODEL, UNTIL).traffic
    assert not isinstance(by_log, Unknown) and not by_log.counted
    assert sum(each.requests for each in by_log.stretches) == 1
    endpoint = world.endpoint()
    assert isinstance(endpoint, FakeEndpoint)
    endpoint.counted = (Counted(UNTIL - timedelta(hours=1), 3600, 9, 2, 1, {10: 9}),)
    counted = gather(world, MODEL, UNTIL).traffic
    assert not isinstance(counted, Unknown) and counted.counted
    assert [(each.requests, each.refused, each.failed) for each in counted.stretches[:1]] == [(9, 2, 1)]


def test_the_log_tells_of_each_version_how_much_it_was_asked(world: World) -> None:
    for days, version in ((0.5, "1"), (1.5, "1"), (3, "0"), (40, "0")):
        ask(world, houses(50), days_ago=days, version=version)
    land_segments(world.endpoint(), world.lake(), MODEL.spec)
    logged = gather(world, MODEL, UNTIL).logged
    assert [(each.version, each.requests, each.rows) for each in logged] == [("1", 2, 100), ("0", 1, 50)]  # type: ignore[union-attr]


def test_whose_approval_it_was_is_read_from_the_signed_record(tmp_path: Path) -> None:
    made = promoted(tmp_path)
    facts = gather(made.world, MODEL, NOW)
    assert isinstance(facts.serving, Serving)
    assert facts.serving.requested_by == "dana@example.com"
    (decider,) = facts.serving.deciders  # type: ignore[misc]
    assert (decider.by, decider.reason, decider.authenticated) == ("max@example.com", "good <b>work</b>", False)


def test_a_model_that_never_served_has_a_page(tmp_path: Path) -> None:
    drawn = draw(World.at(tmp_path), "price", UNTIL)
    assert drawn.headline == "Nothing serves yet; nobody has looked at its traffic yet; no alert is open."
    assert "unknown" not in re.sub(r"\.unknown|class=.unknown.|[Uu]nknown so far", "", drawn.path.read_text()).lower()


def test_a_part_that_cannot_be_learnt_is_unknown_and_the_others_are_shown(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(model: str) -> None:
        raise ConnectionRefusedError("[Errno 111] Connection refused")

    monkeypatch.setattr("tasks.dashboard.facts.next_runs", silent)
    world._adapters["tracking"].available = False  # type: ignore[attr-defined]  # the fake's knob
    facts = gather(world, MODEL, UNTIL)
    assert facts.schedule == Unknown("ConnectionRefusedError: [Errno 111] Connection refused")
    assert isinstance(facts.costs, Unknown) and isinstance(facts.serving, Serving) and facts.links == {}


def test_a_request_that_the_ledger_does_not_know_leaves_its_part_unknown(world: World) -> None:
    facts = gather(world, MODEL, UNTIL)
    assert isinstance(facts.serving, Serving)
    assert isinstance(facts.serving.requested_by, Unknown) and facts.serving.deciders == ()


def test_alerts_of_other_models_and_environments_are_not_shown(world: World, tmp_path: Path) -> None:
    tell_seen(world, looked(world, tmp_path), "", key="mine", now=NOW)
    (mine,) = world.outbox().signals("price/local/model.check.impossible")
    for name, change in {"model": {"model": "price2"}, "environment": {"environment": "staging"}}.items():
        world.outbox().signal(replace(mine, key=name, cause=f"other/{name}", **change))
    assert [each.cause for each in gather(world, MODEL, UNTIL).episodes] == [mine.cause]  # type: ignore[union-attr]


def test_pages_and_the_list_of_them_are_written_whole_and_readable_by_their_owner_alone(world: World) -> None:
    drawn = draw(world, "price", UNTIL)
    folder = world.dashboards_folder
    assert sorted(path.name for path in folder.iterdir()) == ["index.html", "price.html", "price.json"]
    assert folder.stat().st_mode & 0o077 == 0
    assert 'href="price.html"' in (folder / "index.html").read_text()
    assert drawn.url == "", "this environment serves it nowhere"
    (folder / "broken.json").write_text("{")
    (folder / "gone.json").write_text((folder / "price.json").read_text().replace('"price"', '"gone"'))
    assert [each.model for each in list_of(folder)] == ["price"]


def test_a_disk_that_is_full_leaves_the_page_before(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    before = draw(world, "price", UNTIL).path.read_text()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        draw(world, "price", UNTIL + DAY)
    assert (world.dashboards_folder / "price.html").read_text() == before
    assert sorted(path.name for path in world.dashboards_folder.iterdir()) == ["index.html", "price.html", "price.json"]


def test_where_it_is_kept_and_served_is_said_by_the_environment(world: World, tmp_path: Path) -> None:
    world.dashboards = Dashboards(folder=str(tmp_path / "pages"), url="http://127.0.0.1:8080/dashboards/")
    drawn = draw(world, "price", UNTIL)
    assert (drawn.path, drawn.url) == (tmp_path / "pages" / "price.html", "http://127.0.0.1:8080/dashboards/price")


def test_a_model_whose_page_would_be_the_list_is_refused(world: World) -> None:
    with pytest.raises(Refusal, match="Rename"):
        draw(world, "index", UNTIL)


@pytest.mark.parametrize("problem", [Unavailable("the ledger is away"), OSError(28, "full"), ValueError("a bug")])
def test_a_page_that_cannot_be_drawn_fails_no_flow(
    problem: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(name: str) -> None:
        raise problem

    monkeypatch.setattr(dashboard, "open_environment", broken)
    monkeypatch.setattr(dashboard, "get_run_logger", lambda: logging.getLogger("run"))
    with caplog.at_level("WARNING"):
        assert draw_dashboard.fn("price", "local") is None
    assert "the dashboard of price was not drawn" in caplog.text and str(problem) in caplog.text
