"""Monitoring runs: no alert without a change, one sentence for a change, and an alert when the check failed."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from blocks.common.errors import Unavailable
from runtime.values import FORMS_VERSION
from tasks.monitoring.current import ingest_log_segments
from tasks.monitoring.reference import load_reference
from tasks.monitoring.reporting import emit_monitoring_alerts
from tasks.monitoring.rules.report import monitoring_plot
from tasks.monitoring.runs import MonitoringScope, parse_end_time
from tasks.notification.delivery import open_causes
from tasks.shared.champion import VALUES_TAG
from tasks.shared.rules.refusal import Refusal
from tests.fakes.environment import NOW, World
from tests.fixtures.monitored import (
    DAY,
    MODEL,
    UNTIL,
    ask,
    ask_days,
    causes,
    houses,
    judgement,
    land,
    looked,
    serving,
)


@pytest.fixture
def env(tmp_path: Path) -> World:
    return serving(tmp_path)


def test_traffic_like_the_reference_is_quiet(env: World, tmp_path: Path) -> None:
    ask_days(env, 500)
    seen = looked(env, tmp_path, draw=monitoring_plot)
    assert (seen.outcome, seen.alert_events, seen.rows_per_window) == ("no_drift", (), (500, 500, 500))
    assert set(seen.psi_by_column) == {"rooms", "street", "garden", "_prediction_Yes"}
    assert "none of 4 columns" in seen.summary
    report = (seen.folder / "report.md").read_text()
    assert "no drift" in report and "rooms" in report
    assert (seen.folder / "monitoring-report.png").read_bytes().startswith(b"\x89PNG")


DRIFTS = {
    "a shifted number": ({"rooms": lambda rows: rows["rooms"] + 1}, "distribution:rooms", "mean"),
    "a number of another scale": ({"rooms": lambda rows: rows["rooms"] * 3}, "distribution:rooms", "PSI"),
    "a category that takes over": ({"street": "Oak"}, "distribution:street", "Oak 30% → 100%"),
    "a new category": ({"street": lambda r: np.where(r.index % 20 == 0, "Fir", r["street"])}, "new values:street", "'Fir'"),
    "nulls": ({"rooms": lambda r: r["rooms"].where(r.index % 5 != 0)}, "nulls:rooms", "missing 0.0% →"),
    "a flag that turned over": ({"garden": 1}, "distribution:garden", "mean 0.4927 → 1"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "cause", "words"), DRIFTS.values(), ids=DRIFTS)
def test_drift_is_told_with_its_cause_and_what_changed(env: World, tmp_path: Path, change, cause, words) -> None:
    ask_days(env, 500, **change)
    seen = looked(env, tmp_path)
    assert seen.outcome == "drift"
    (told,) = seen.alert_events
    assert told.event == "model.drift.detected"
    assert cause in told.cause_columns
    assert cause.partition(":")[2] in seen.summary and words in seen.summary, seen.summary
    assert seen.summary.startswith("Drift from the reference data of version 1: ")
    assert seen.summary.endswith(", in 3 of 3 windows).")


def test_one_window_of_three_is_no_drift_and_two_are(env: World, tmp_path: Path) -> None:
    ask_days(env, 500, days=1, garden=1)
    for day in (1, 2):
        ask(env, houses(500, seed=day, first=5000 * day), days_ago=day + 0.5)
    assert looked(env, tmp_path).outcome == "no_drift"
    ask(env, houses(1500, seed=9, first=50_000).assign(garden=1), days_ago=1.4)
    assert looked(env, tmp_path).outcome == "drift"


def test_the_three_furthest_columns_are_named_in_one_sentence(env: World, tmp_path: Path) -> None:
    ask_days(env, 500, rooms=lambda r: r["rooms"] + 3, street="Ash", garden=1)
    seen = looked(env, tmp_path)
    assert seen.summary.count("PSI") == 3 and "; and 1 more." in seen.summary
    assert seen.alert_events[0].severity == "critical"


def test_predictions_that_moved_are_critical_though_no_column_did(env: World, tmp_path: Path) -> None:
    for day in range(3):
        ask(env, houses(500, seed=day, first=5000 * day + 5000), days_ago=day + 0.5, said=[[0.1, 0.9]] * 500)
    seen = looked(env, tmp_path)
    assert causes(seen) == {"distribution:_prediction_Yes"}
    assert seen.alert_events[0].severity == "critical"


def test_traffic_that_stopped_is_not_silence(env: World, tmp_path: Path) -> None:
    ask(env, houses(500), days_ago=1.5)
    ask(env, houses(500), days_ago=2.5)
    seen = looked(env, tmp_path)
    assert (seen.outcome, causes(seen)) == ("not_checked", {"freshness:"})
    assert seen.alert_events[0].event == "model.monitoring.failed"
    assert "between 2026-11-23 12:00 and 2026-11-25 00:00 UTC" in seen.summary


def test_no_traffic_at_all_and_too_little_are_told(env: World, tmp_path: Path) -> None:
    assert causes(looked(env, tmp_path)) == {"freshness:"}
    ask_days(env, 20)
    seen = looked(env, tmp_path)
    assert (seen.outcome, causes(seen)) == ("not_checked", {"rows:"})
    assert "Only 0 of the 3 newest windows have the required 200 rows" in seen.summary


def test_another_version_s_traffic_is_none_of_this_one_s(env: World, tmp_path: Path) -> None:
    for day in range(3):
        ask(env, houses(500), days_ago=day + 0.5, version="0")
    assert causes(looked(env, tmp_path)) == {"freshness:"}


def test_a_version_that_is_a_day_old_is_judged_by_its_one_window(tmp_path: Path) -> None:
    env = serving(tmp_path)
    (line,) = env.effects().deployments("price", "local")
    env.effects().record_deployment(replace(line, id="again", action="rollback", at=UNTIL - 0.9 * DAY))
    ask_days(env, 500, days=1)
    assert looked(env, tmp_path).outcome == "no_drift"
    ask(env, houses(2500, seed=3, first=30_000).assign(garden=1), days_ago=0.4)
    seen = looked(env, tmp_path)
    assert (seen.outcome, seen.rows_per_window) == ("drift", (3000,))


def test_far_fewer_rows_than_usual_are_told(env: World, tmp_path: Path) -> None:
    for day in range(5):
        ask(env, houses(300 if day == 0 else 1500, seed=day, first=5000 * day + 5000), days_ago=day + 0.5)
    seen = looked(env, tmp_path)
    assert causes(seen) == {"volume:"}
    assert "300 rows; 1,500 are usual" in seen.alert_events[0].details[0]


def test_nothing_serves_is_told(tmp_path: Path) -> None:
    seen = looked(World.at(tmp_path), tmp_path)
    assert (seen.outcome, seen.version) == ("not_checked", "(none)")
    assert "is deployed yet" in seen.summary


def test_a_reference_that_is_not_the_approved_one_is_told(env: World, tmp_path: Path) -> None:
    env.tracking().tag_version("price", "1", {"ratchet.data_digest": "0" * 64})
    ask_days(env, 500)
    seen = looked(env, tmp_path)
    assert (seen.outcome, causes(seen)) == ("not_checked", {"reference:"})
    assert "the registry says otherwise" in seen.summary


def test_the_reference_is_that_of_the_evidence_whatever_read_the_registry_names(env: World, tmp_path: Path) -> None:
    land(env, houses(10, seed=9, first=900_000), "later")
    env.tracking().tag_version("price", "1", {"ratchet.reread_as_of": env.lake().as_of("houses").id})
    ask_days(env, 500)
    assert looked(env, tmp_path).outcome == "no_drift"


def test_a_server_that_is_down_is_tried_again_and_not_judged(env: World, tmp_path: Path) -> None:
    env._adapters["tracking"].available = False  # type: ignore[attr-defined]  # the fake's knob
    with pytest.raises(Unavailable):
        looked(env, tmp_path)


def test_a_log_that_is_off_is_told(env: World, tmp_path: Path) -> None:
    off = MODEL.spec.model_copy(
        update={"inference_log": MODEL.spec.inference_log.model_copy(update={"enabled": False})}
    )
    seen = looked(env, tmp_path, model=replace(MODEL, spec=off))
    assert seen.outcome == "not_checked" and "inference log is off" in seen.summary


def test_a_hashed_column_is_not_watched_and_that_is_said(env: World, tmp_path: Path) -> None:
    rules = MODEL.spec.inference_log.model_copy(update={"hash": ("street",), "exclude": ("garden",)})
    private = replace(MODEL, spec=MODEL.spec.model_copy(update={"inference_log": rules}))
    ask_days(env, 500)
    seen = looked(env, tmp_path, model=private)
    assert (seen.outcome, set(seen.psi_by_column)) == ("no_drift", {"rooms", "_prediction_Yes"})
    assert "street, garden" in (seen.folder / "report.md").read_text()
    landed = env.lake().read(env.lake().as_of("houses-inference"))
    assert "garden" not in landed.column_names and "street" not in landed.column_names


@pytest.mark.parametrize(("forms", "stored"), [("", "true"), (FORMS_VERSION, "True")], ids=["earlier", "present"])
def test_categories_are_compared_in_the_forms_that_the_version_knows(tmp_path: Path, forms: str, stored: str) -> None:
    env = serving(tmp_path / "env", street=stored)
    if forms:
        env.tracking().tag_version("price", "1", {VALUES_TAG: forms})
    ask_days(env, 500, street="true")
    seen = looked(env, tmp_path)
    assert seen.outcome == "no_drift", (tmp_path / "report.md").read_text()
    landed = env.lake().read(env.lake().as_of("houses-inference"))
    assert {*landed["street"].to_pylist()} == {stored}


def test_a_segment_lands_once_and_is_discarded(env: World) -> None:
    ask(env, houses(50))
    (logged,) = env.endpoint().log_segments("price")
    assert ingest_log_segments(env.endpoint(), env.lake(), env.tracking(), MODEL.spec).rows == 50
    assert list(env.endpoint().log_segments("price")) == []
    env.endpoint().add_log_segment("price", logged)  # type: ignore[attr-defined]  # as if killed before it was removed
    again = ingest_log_segments(env.endpoint(), env.lake(), env.tracking(), MODEL.spec)
    assert (again.segments, again.rows) == (1, 0)
    assert env.lake().as_of("houses-inference").rows == 50


def test_a_broken_segment_is_told_and_stays(env: World, tmp_path: Path) -> None:
    ask(env, houses(50), said=[[0.5, 0.5]] * 49)
    seen = looked(env, tmp_path)
    assert {"log:"} <= causes(seen)
    assert "not have one prediction for each of its 50 rows" in " ".join(seen.alert_events[0].details)
    assert len(list(env.endpoint().log_segments("price"))) == 1


def weekend(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(garden=1)


def test_a_weekday_that_always_differs_is_no_drift_and_a_lasting_change_is(tmp_path: Path) -> None:
    env = serving(tmp_path)
    for day in range(29):
        rows = houses(300, seed=day, first=5000 * day + 5000)
        ask(env, weekend(rows) if day % 7 == 0 else rows, days_ago=day + 0.5)
    seen = looked(env, tmp_path, windows=1, min_breached_windows=1)
    assert seen.outcome == "no_drift", seen.summary
    assert "garden differs, but only as always on this weekday" in (seen.folder / "report.md").read_text()
    lasting = serving(tmp_path / "other")
    for day in range(29):
        ask(lasting, weekend(houses(300, seed=day, first=5000 * day + 5000)), days_ago=day + 0.5)
    assert looked(lasting, tmp_path, windows=1, min_breached_windows=1).outcome == "drift"


def test_what_was_open_is_over_when_it_was_looked_for_and_not_found(env: World, tmp_path: Path) -> None:
    def open_now() -> set[str]:
        return {cause.rpartition("/")[2] for cause in open_causes(env.outbox(), NOW)}

    assert emit_monitoring_alerts(env, looked(env, tmp_path), "", key="no traffic", now=NOW) == 1
    assert open_now() == {"model.monitoring.failed"}
    ask_days(env, 500, garden=1)
    drifted = looked(env, tmp_path)
    for _ in range(2):
        emit_monitoring_alerts(env, drifted, "http://run", key="drift", now=NOW)
    assert open_now() == {"model.drift.detected"}, "it could be checked again, and it drifts"
    (signal,) = env.outbox().signals("price/local/model.drift.detected")
    assert (signal.severity, signal.summary, signal.links) == (
        "critical",
        drifted.summary,
        {"version's run": "http://run"},
    )
    far = MonitoringScope(UNTIL + 30 * DAY, DAY)
    emit_monitoring_alerts(env, looked(env, tmp_path, wanted=far), "", key="silent", now=NOW)
    assert open_now() == {"model.drift.detected", "model.monitoring.failed"}, "what was not looked at is not over"


# quality -------------------------------------------------------------------------------------------------------


def test_quality_is_measured_on_labels_that_arrived_later(env: World, tmp_path: Path) -> None:
    ask_days(env, 500)
    for day in range(3):
        land(env, houses(500, seed=100 + day, first=10_000 * (day + 1)), f"labels {day}")
    seen = looked(env, tmp_path)
    assert seen.outcome == "no_drift"
    (auc,) = judgement(seen)["quality_metrics"]
    assert (auc["metric"], auc["rows"], auc["worse"]) == ("auc", 1500, False)
    assert auc["lower"] < auc["reference_value"] < auc["upper"]


def test_predictions_that_got_worse_are_told(env: World, tmp_path: Path) -> None:
    ask_days(env, 500)
    for day in range(3):
        labels = houses(500, seed=100 + day, first=10_000 * (day + 1))
        random = np.random.default_rng(day).permutation(labels["price"].to_numpy())
        land(env, labels.assign(price=random), f"labels {day}")
    spec = MODEL.spec.evaluation.model_copy(
        update={"comparison": MODEL.spec.evaluation.comparison.model_copy(update={"margin": 0.05})}
    )
    model = replace(MODEL, spec=MODEL.spec.model_copy(update={"evaluation": spec}))
    seen = looked(env, tmp_path, model=model)
    assert seen.outcome == "degraded"
    assert [told.event for told in seen.alert_events] == ["model.quality.degraded"]
    assert "auc is 0." in seen.summary and "at promotion" in seen.summary


def test_labels_that_the_version_was_trained_on_prove_nothing(env: World, tmp_path: Path) -> None:
    for day in range(3):
        ask(env, houses(500), days_ago=day + 0.5)
    seen = looked(env, tmp_path)
    assert judgement(seen)["quality_metrics"] == []
    assert "0 rows have labels that arrived later, fewer than the 50" in (seen.folder / "report.md").read_text()


def labelled(env: World, share: float, rows: int = 300) -> None:
    """Log requests about new houses, of which this share is sold later; the model's predictions do not depend on it."""
    for day in range(3):
        asked = houses(rows, seed=100 + day, first=10_000 * (day + 1))
        ask(env, asked, days_ago=day + 0.5)
        sold = np.random.default_rng(day).random(rows) < share
        land(env, asked.assign(price=np.where(sold, "Yes", "No")), f"labels {day}")


def test_a_change_of_labels_that_does_not_matter_is_not_told(env: World, tmp_path: Path) -> None:
    labelled(env, 0.30)  # 28 % of the reference
    assert "labels:price" not in causes(looked(env, tmp_path))


@pytest.mark.parametrize(("share", "severity"), [(0.4, "warning"), (0.9, "critical")])
def test_a_label_shift_is_told_with_both_shares(env: World, tmp_path: Path, share: float, severity: str) -> None:
    labelled(env, share)
    seen = looked(env, tmp_path)
    (told,) = [each for each in seen.alert_events if each.event == "model.drift.detected"]
    assert (told.cause_columns, told.severity) == (("labels:price",), severity)
    assert "Of 900 labels that have arrived, " in told.details[0] and "have price = Yes" in told.details[0]
    assert set(seen.psi_by_column) == {"rooms", "street", "garden", "_prediction_Yes"}


def test_a_class_of_which_no_label_arrives_is_the_largest_shift(env: World, tmp_path: Path) -> None:
    labelled(env, 0.0)
    assert causes(looked(env, tmp_path)) == {"labels:price"}
    assert "a class has 0 labelled rows" in (tmp_path / "look" / "report.md").read_text()


def test_a_few_labels_are_not_judged(env: World, tmp_path: Path) -> None:
    labelled(env, 0.9, rows=15)  # 45 labels of the 50 that are needed
    assert "labels:price" not in causes(looked(env, tmp_path, minimum_rows=10))


# a data set of the lake ------------------------------------------------------------------------------------------


def test_a_data_set_is_looked_at_as_one_window(env: World, tmp_path: Path) -> None:
    seen = looked(env, tmp_path, wanted=MonitoringScope(UNTIL, DAY, "houses"), windows=1, min_breached_windows=1)
    assert (seen.outcome, seen.rows_per_window) == ("no_drift", (3000,))
    assert "_prediction_Yes" not in seen.psi_by_column


def test_a_missing_column_and_another_type_are_told_and_the_rest_is_compared(env: World, tmp_path: Path) -> None:
    import pyarrow as pa

    rows = houses(1000, seed=5).assign(garden=1)
    table = pa.table({"rooms": [str(each) for each in rows["rooms"]], "garden": rows["garden"].tolist()})
    env.lake().append("other", table, source="test", key="other", at=UNTIL)
    seen = looked(env, tmp_path, wanted=MonitoringScope(UNTIL, DAY, "other"), windows=1, min_breached_windows=1)
    assert causes(seen) == {"type:rooms", "schema:street", "distribution:garden"}
    assert seen.outcome == "drift"
    assert {told.event for told in seen.alert_events} == {"model.drift.detected", "model.monitoring.failed"}


def test_a_data_set_that_is_not_there_is_told(env: World, tmp_path: Path) -> None:
    seen = looked(env, tmp_path, wanted=MonitoringScope(UNTIL, DAY, "nowhere"), windows=1, min_breached_windows=1)
    assert (seen.outcome, causes(seen)) == ("not_checked", {"rows:"})


def test_a_time_is_read_with_its_zone_or_refused() -> None:
    assert parse_end_time("2026-11-25T01:00:00+01:00", NOW) == datetime(2026, 11, 25, tzinfo=UTC)
    assert parse_end_time("", NOW) == NOW
    for wrong in ("yesterday", "2026-11-25T01:00:00"):
        with pytest.raises(Refusal, match="until"):
            parse_end_time(wrong, NOW)


def test_the_reference_is_divided_as_the_version_was_whatever_model_yaml_says_now(tmp_path: Path) -> None:
    """Under another rule the version may have been trained on rows of the holdout that it is measured by."""
    env = serving(tmp_path, rows=500)
    then = load_reference(env, MODEL, "1").tier
    changed = replace(MODEL, spec=MODEL.spec.model_copy(update={"holdout": 0.4}))
    now = load_reference(env, changed, "1").tier
    assert (now.holdout_rule, now.holdout_digest) == (then.holdout_rule, then.holdout_digest)
