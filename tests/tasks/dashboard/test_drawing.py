"""Drawing of the dashboard, from fakes: written completely or not at all; a failure stops no other work."""

import logging
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from blocks.common.errors import Unavailable
from blocks.common.gateway_settings import DashboardSettings
from blocks.endpoints.fake import FakeEndpoint
from blocks.records.traffic import TrafficInterval as Counted
from tasks.dashboard import drawing
from tasks.dashboard import tasks as dashboard
from tasks.dashboard.drawing import read_summaries, write_dashboard
from tasks.dashboard.facts import gather_dashboard_data
from tasks.dashboard.rules.facts import DeployedVersionSummary, ScheduledRun, Unknown
from tasks.dashboard.tasks import update_dashboard
from tasks.monitoring.current import ingest_log_segments
from tasks.monitoring.reporting import emit_monitoring_alerts
from tasks.shared.monitoring_history import store_monitoring_run
from tasks.shared.rules.refusal import Refusal
from tests.fakes.environment import NOW, World
from tests.fixtures.monitored import DAY, MODEL, UNTIL, ask, ask_days, houses, looked, serving
from tests.fixtures.promoted import promoted

PLANNED = (ScheduledRun("monitor/price-nightly", UNTIL + DAY, False),)


@pytest.fixture(autouse=True)
def prefect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the Prefect server, which these tests do not start."""
    monkeypatch.setattr("tasks.dashboard.facts.scheduled_runs", lambda model: PLANNED)
    monkeypatch.setattr(drawing, "load_model", lambda name: MODEL)


@pytest.fixture
def env(tmp_path: Path) -> World:
    return serving(tmp_path)


def test_a_model_at_work_is_shown_with_all_that_is_recorded(env: World, tmp_path: Path) -> None:
    ask_days(env, 500, garden=1)
    seen = looked(env, tmp_path)
    store_monitoring_run(env, seen, UNTIL)
    emit_monitoring_alerts(env, seen, "", key="run-1", now=NOW)
    facts = gather_dashboard_data(env, MODEL, NOW)
    assert isinstance(facts.deployed, DeployedVersionSummary)
    assert (facts.deployed.release.version, facts.deployed.endpoint_version) == ("1", "")
    assert [look.outcome for look in facts.monitoring_runs] == ["drift"]  # type: ignore[union-attr]
    assert [(e.event, e.is_open) for e in facts.alerts] == [("model.drift.detected", True)]  # type: ignore[union-attr]
    assert {d.name: sum(a.rows for a in d.snapshots) for d in facts.data} == {"houses": 3000, "houses-inference": 1500}  # type: ignore[union-attr]
    assert facts.schedule == PLANNED
    drawn = write_dashboard(env, "price", NOW)
    text = drawn.path.read_text()
    assert drawn.headline.startswith(
        "Version 1 is deployed, but the endpoint reports no version; the last monitoring run"
    )
    assert "found drift; 1 alert is open." in drawn.headline
    assert seen.summary[:60] in text and "monitor/price-nightly" in text


def test_what_the_endpoint_counted_is_shown_rather_than_its_log(env: World) -> None:
    ask(env, houses(50))
    ingest_log_segments(env.endpoint(), env.lake(), env.tracking(), MODEL.spec)
    by_log = gather_dashboard_data(env, MODEL, UNTIL).traffic
    assert not isinstance(by_log, Unknown) and not by_log.has_errors_and_latency
    assert sum(each.requests for each in by_log.steps) == 1
    endpoint = env.endpoint()
    assert isinstance(endpoint, FakeEndpoint)
    endpoint.fixed_traffic = (Counted(UNTIL - timedelta(hours=1), 3600, 9, 2, 1, {10: 9}),)
    counted = gather_dashboard_data(env, MODEL, UNTIL).traffic
    assert not isinstance(counted, Unknown) and counted.has_errors_and_latency
    assert [(each.requests, each.client_errors, each.server_errors) for each in counted.steps[:1]] == [(9, 2, 1)]


def test_the_log_tells_of_each_version_how_much_it_was_asked(env: World) -> None:
    for days, version in ((0.5, "1"), (1.5, "1"), (3, "0"), (40, "0")):
        ask(env, houses(50), days_ago=days, version=version)
    ingest_log_segments(env.endpoint(), env.lake(), env.tracking(), MODEL.spec)
    logged = gather_dashboard_data(env, MODEL, UNTIL).inference_log
    assert [(each.version, each.requests, each.rows) for each in logged] == [("1", 2, 100), ("0", 1, 50)]  # type: ignore[union-attr]


def test_whose_approval_it_was_is_read_from_the_signed_record(tmp_path: Path) -> None:
    made = promoted(tmp_path)
    facts = gather_dashboard_data(made.env, MODEL, NOW)
    assert isinstance(facts.deployed, DeployedVersionSummary)
    assert facts.deployed.requested_by == "dana@example.com (not authenticated)"
    (decider,) = facts.deployed.decisions  # type: ignore[misc]
    assert (decider.by, decider.reason, decider.authenticated) == ("max@example.com", "good <b>work</b>", False)


def test_a_model_that_never_served_has_a_page(tmp_path: Path) -> None:
    drawn = write_dashboard(World.at(tmp_path), "price", UNTIL)
    assert drawn.headline == "No version is deployed yet; no monitoring run yet; no alert is open."
    assert "unknown" not in re.sub(r"\.unknown|class=.unknown.|[Uu]nknown so far", "", drawn.path.read_text()).lower()


def test_a_part_that_cannot_be_learnt_is_unknown_and_the_others_are_shown(
    env: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(model: str) -> None:
        raise ConnectionRefusedError("[Errno 111] Connection refused")

    monkeypatch.setattr("tasks.dashboard.facts.scheduled_runs", silent)
    env._adapters["tracking"].available = False  # type: ignore[attr-defined]  # the fake's knob
    facts = gather_dashboard_data(env, MODEL, UNTIL)
    assert facts.schedule == Unknown("ConnectionRefusedError: [Errno 111] Connection refused")
    assert isinstance(facts.costs, Unknown) and isinstance(facts.deployed, DeployedVersionSummary) and facts.links == {}


def test_a_request_that_the_ledger_does_not_know_leaves_its_part_unknown(env: World) -> None:
    newest = env.effects().deployments(MODEL.spec.name, env.name)[0]
    later = newest.at + timedelta(minutes=1)
    env.effects().record_deployment(replace(newest, id="deploy:again", request_id="gone", at=later))
    facts = gather_dashboard_data(env, MODEL, UNTIL)
    assert isinstance(facts.deployed, DeployedVersionSummary)
    assert isinstance(facts.deployed.requested_by, Unknown) and facts.deployed.decisions == ()


def test_alerts_of_other_models_and_environments_are_not_shown(env: World, tmp_path: Path) -> None:
    emit_monitoring_alerts(env, looked(env, tmp_path), "", key="mine", now=NOW)
    (mine,) = env.outbox().signals("price/local/model.monitoring.failed")
    for name, change in {"model": {"model": "price2"}, "environment": {"environment": "aws"}}.items():
        env.outbox().record_signal(replace(mine, key=name, cause=f"other/{name}", **change))
    assert [each.cause for each in gather_dashboard_data(env, MODEL, UNTIL).alerts] == [mine.cause]  # type: ignore[union-attr]


def test_a_page_is_written_beside_the_list_of_all_pages(env: World) -> None:
    drawn = write_dashboard(env, "price", UNTIL)
    folder = env.dashboards_folder
    assert sorted(path.name for path in folder.iterdir()) == ["index.html", "price.html", "price.json"]
    assert 'href="price.html"' in (folder / "index.html").read_text()
    assert drawn.url == "", "this environment serves it nowhere"


def test_pages_are_readable_by_their_owner_alone(env: World) -> None:
    write_dashboard(env, "price", UNTIL)
    assert env.dashboards_folder.stat().st_mode & 0o077 == 0


def test_a_page_that_is_broken_or_gone_is_not_in_the_list(env: World) -> None:
    write_dashboard(env, "price", UNTIL)
    folder = env.dashboards_folder
    (folder / "broken.json").write_text("{")
    (folder / "gone.json").write_text((folder / "price.json").read_text().replace('"price"', '"gone"'))
    assert [each.model for each in read_summaries(folder)] == ["price"]


def test_a_disk_that_is_full_leaves_the_page_before(env: World, monkeypatch: pytest.MonkeyPatch) -> None:
    before = write_dashboard(env, "price", UNTIL).path.read_text()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_dashboard(env, "price", UNTIL + DAY)
    assert (env.dashboards_folder / "price.html").read_text() == before
    assert sorted(path.name for path in env.dashboards_folder.iterdir()) == ["index.html", "price.html", "price.json"]


def test_where_it_is_kept_and_served_is_said_by_the_environment(env: World, tmp_path: Path) -> None:
    env.dashboards = DashboardSettings(folder=str(tmp_path / "pages"), url="http://127.0.0.1:8080/dashboards/")
    drawn = write_dashboard(env, "price", UNTIL)
    assert (drawn.path, drawn.url) == (tmp_path / "pages" / "price.html", "http://127.0.0.1:8080/dashboards/price")


def test_a_model_whose_page_would_be_the_list_is_refused(env: World) -> None:
    with pytest.raises(Refusal, match="Rename"):
        write_dashboard(env, "index", UNTIL)


@pytest.mark.parametrize("problem", [Unavailable("the ledger is away"), OSError(28, "full"), ValueError("a bug")])
def test_a_page_that_cannot_be_drawn_fails_no_flow(
    problem: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(name: str) -> None:
        raise problem

    monkeypatch.setattr(dashboard, "open_environment", broken)
    monkeypatch.setattr(dashboard, "get_run_logger", lambda: logging.getLogger("run"))
    with caplog.at_level("WARNING"):
        assert update_dashboard.fn("price", "local") is None
    assert "the dashboard of price was not drawn" in caplog.text and str(problem) in caplog.text
