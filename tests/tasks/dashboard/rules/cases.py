"""Facts of dashboards: a model that is busy, one of which nothing is known, one that was just brought."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import sin

from tasks.dashboard.rules.episodes import Episode
from tasks.dashboard.rules.facts import (
    Costs,
    DataSet,
    Decider,
    Facts,
    Landing,
    LoggedRows,
    NextRun,
    Release,
    Serving,
    Traffic,
    Unknown,
)
from tasks.monitoring.rules.history import Look, Measure
from tasks.monitoring.rules.traffic import Stretch
from tasks.shared.rules.cost.spent import MonthSum

NOW = datetime(2026, 11, 25, 12, 30, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
COLUMNS = (
    "contract",
    "monthly_charges",
    "payment_method",
    "tenure",
    "prediction Yes",
    "partner",
    "gender",
    "tech",
    "tv",
)


def look(at: datetime, index: float, outcome: str = "Quiet", auc: float | None = None) -> Look:
    """A look that found columns up to an index, and perhaps measured the quality."""
    measures = [
        Measure("drift", name, index / (place + 1), None, None, None, outcome == "Drift" and place < 3)
        for place, name in enumerate(COLUMNS)
    ]
    if auc is not None:
        measures.append(Measure("quality", "auc", auc, 0.845, auc - 0.02, auc + 0.02, outcome == "Degraded"))
    return Look(f"run-{at:%d%H}", at, "2", outcome, f"In words: {outcome}.", 1200, tuple(measures))


def stretch(number: int) -> Stretch:
    """An hour of a day that is busy at noon."""
    at = NOW.replace(minute=0) - (47 - number) * HOUR
    requests = int(60 + 50 * sin(number / 24 * 6.28))
    return Stretch(
        at, 3600, requests, requests // 25, int(number == 30) * 3, {8: requests // 2, 10: requests // 3, 13: 2}
    )


def busy() -> Facts:
    """A model that serves, is asked, was looked at for a month, and drifts."""
    releases = (
        Release("2", "deploy", "serving", "Max (second person)", "better by 0.02 AUC", NOW - 9 * DAY),
        Release("3", "deploy", "failed", "Max (second person)", "it answers otherwise", NOW - 10 * DAY),
        Release("1", "deploy", "serving", "Nia", "the first", NOW - 28 * DAY),
    )
    decider = Decider("Max (second person)", NOW - 9 * DAY, True, "better by 0.02 AUC", "prefect form", False)
    looks = [look(NOW - (27 - day) * DAY, 0.03 + 0.002 * (day % 5), auc=0.84 + 0.003 * sin(day)) for day in range(24)]
    looks.append(look(NOW - 3 * DAY, 0.0, "CouldNotCheck"))
    looks[-1] = replace(looks[-1], measures=())
    looks += [look(NOW - DAY, 0.4, "Drift", 0.83), look(NOW - 9 * HOUR, 0.46, "Degraded", 0.78)]
    drift = "model.drift.detected"
    episodes = (
        Episode(f"churn/local/{drift}", drift, "the data drifts", "warning", "contract differs.", NOW - DAY, None, 2),
        Episode("churn/local/model.quality.degraded", "model.quality.degraded", "the model has become worse",
                "critical", "auc is 0.7800.", NOW - 9 * HOUR, None, 1, "Nia"),
        Episode("churn/local/model.check.impossible", "model.check.impossible", "the model cannot be watched",
                "critical", "No requests.", NOW - 3 * DAY, NOW - 2 * DAY),
        Episode("churn/local/release.deployed", "release.deployed", "a version was deployed", "info",
                "Version 2 serves.", NOW - 9 * DAY, NOW - 9 * DAY),
    )  # fmt: skip
    landings = tuple(Landing(NOW - (30 - day) * DAY, 200 + 7 * day, f"customers-{day}.csv") for day in range(0, 30, 3))
    return Facts(
        model="churn",
        environment="local",
        description="Probability that a telecom customer leaves within the month.",
        owner="growth-team@example.com",
        drawn_at=NOW,
        serving=Serving(releases[0], "ab" * 32, "Dana (data scientist)", (decider,), "2"),
        releases=releases,
        episodes=episodes,
        traffic=Traffic(tuple(stretch(number) for number in range(48)), counted=True),
        logged=(LoggedRows("2", 2100, 126000, NOW - HOUR), LoggedRows("1", 900, 54000, NOW - 9 * DAY)),
        looks=tuple(looks),
        data=(DataSet("churn", "the model's rows", landings, 1_234_567),),
        costs=Costs((MonthSum("2026-11", 31.5, 12, 1), MonthSum("2026-10", 58.25, 20, 0)), 120.0),
        schedule=(NextRun("watch_drift/churn-watch-nightly", NOW + 14 * HOUR, False),
                  NextRun("retrain/churn-nightly", None, True)),
        links={"MLflow": "http://127.0.0.1:5000/#/models/churn"},
    )  # fmt: skip


def blank() -> Facts:
    """A model of which nothing has happened yet."""
    return replace(
        busy(), serving=None, releases=(), episodes=(), traffic=Traffic((), counted=True), logged=(), looks=(), data=(),
        costs=Costs((), 5.0), schedule=(), links={},
    )  # fmt: skip


def unreached() -> Facts:
    """A model of which nothing could be learnt."""
    why = Unknown("the service at http://127.0.0.1:1 does not answer")
    return replace(
        busy(), serving=why, releases=why, episodes=why, traffic=why, logged=why, looks=why, data=why, costs=why,
        schedule=why,
    )  # fmt: skip
