"""Alert episodes: the time range, the highest severity, and the person who acknowledged the alert."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tasks.dashboard.rules.facts import alert_episodes_of, open_episodes

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Told:
    """A signal of the ledger."""

    state: str
    hour: int
    severity: str = "warning"
    acknowledged_by: str = ""
    cause: str = "churn/local/model.drift.detected"
    event: str = "model.drift.detected"

    @property
    def at(self) -> datetime:
        return NOON + timedelta(hours=self.hour)

    @property
    def summary(self) -> str:
        return f"said at {self.hour}"


def test_a_condition_is_one_episode_until_it_is_over_and_then_another() -> None:
    first, second = alert_episodes_of([Told("raised", 0), Told("raised", 1), Told("recovered", 2), Told("raised", 5)])
    assert (first.begin, first.end, first.occurrences, first.sentence) == (
        NOON,
        NOON + timedelta(hours=2),
        2,
        "said at 1",
    )
    assert (second.begin, second.end, second.is_open, second.title) == (
        NOON + timedelta(hours=5), None, True, "drift was detected"
    )  # fmt: skip


LOOKED_AFTER = (Told("raised", 0), Told("acknowledged", 1, acknowledged_by="Nia"))
GRAVER = (*LOOKED_AFTER, Told("raised", 2, "critical"), Told("raised", 3))


def test_an_episode_is_as_grave_as_it_ever_was() -> None:
    assert alert_episodes_of(GRAVER)[0].severity == "critical"


def test_who_looks_after_an_episode_does_so_until_it_becomes_graver() -> None:
    assert alert_episodes_of(LOOKED_AFTER)[0].acknowledged_by == "Nia"
    assert alert_episodes_of([*LOOKED_AFTER, Told("raised", 2)])[0].acknowledged_by == "Nia"
    assert alert_episodes_of(GRAVER)[0].acknowledged_by == ""


def test_news_is_over_at_once_and_what_was_never_raised_is_none() -> None:
    news, another = alert_episodes_of([Told("news", 0), Told("recovered", 1), Told("news", 2)])
    assert (news.begin, news.end, another.is_open) == (NOON, NOON, False)
    assert alert_episodes_of([]) == () and alert_episodes_of([Told("recovered", 0)]) == ()


def test_an_event_of_a_later_release_is_shown_by_its_name() -> None:
    (found,) = alert_episodes_of([Told("raised", 0, event="model.new")])
    assert found.title == "model.new"


def test_open_alerts_come_gravest_first() -> None:
    found = [
        *alert_episodes_of([Told("raised", 0)]),
        *alert_episodes_of([Told("raised", 1, "critical")]),
        *alert_episodes_of([Told("raised", 2), Told("recovered", 3)]),
    ]
    assert [each.severity for each in open_episodes(found)] == ["critical", "warning"]
