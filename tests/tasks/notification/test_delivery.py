"""Delivery of alerts: each message reaches people at least once, under one id, despite outages and kills."""

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from prefect.blocks.abstract import NotificationBlock

from blocks.common.errors import NotFound, Unavailable
from blocks.notifications.base import Notification, RatchetNotificationBlock
from blocks.records.alerts import AlertChannel, AlertRouting
from tasks.approval.rules.actions import Actor
from tasks.notification.delivery import acknowledge, deliver_messages, open_causes
from tasks.shared.alerts import emit_alert
from tasks.shared.rules.refusal import Refusal
from tests.fakes.environment import NOW, World


class Receiver(RatchetNotificationBlock):
    """Accepts messages while it is up; dies after accepting one if so configured."""

    _block_type_slug = "receiver-in-memory"
    up: bool = True
    dies: bool = False
    taken: list[Notification] = []  # noqa: RUF012  pydantic copies it

    def deliver(self, notice: Notification) -> None:
        if not self.up:
            raise Unavailable("the receiver is down")
        self.taken.append(notice)
        if self.dies:
            raise KeyboardInterrupt


@pytest.fixture
def env(tmp_path: Path) -> World:
    made = World.at(tmp_path)
    made.alerts = AlertRouting(channels=(
        AlertChannel(name="team", block="receiver/team", min_severity="info"),
        AlertChannel(name="on call", block="receiver/oncall", min_severity="critical"),
    ))  # fmt: skip
    return made


@pytest.fixture
def receivers() -> dict[str, Receiver]:
    return {"receiver/team": Receiver(), "receiver/oncall": Receiver()}


def deliver(env: World, receivers: dict[str, Receiver], after: timedelta = timedelta(0)) -> tuple[int, int, int]:
    def opened(reference: str) -> NotificationBlock:
        if reference not in receivers:
            raise NotFound(f"there is no notification block {reference!r}")
        return receivers[reference]

    done = deliver_messages(env, env.outbox(), lambda: NOW + after, opened)
    return done.delivered, done.failed, done.not_due


def drift(env: World, number: int = 1, **more: str) -> None:
    emit_alert(env, "model.drift.detected", model="churn", sentence=f"look {number}", alert_record_key=f"drift {number}", now=NOW,
         **more)  # fmt: skip


def test_each_channel_is_told_what_it_asked_for_once(env: World, receivers: dict[str, Receiver]) -> None:
    drift(env)
    emit_alert(
        env, "model.monitoring.failed", model="churn", sentence="no rows", alert_record_key="impossible 1", now=NOW
    )
    assert deliver(env, receivers) == (3, 0, 0)
    assert deliver(env, receivers) == (0, 0, 0)
    assert [notice.subject for notice in receivers["receiver/team"].taken] == [
        "[warning] churn (local): drift was detected", "[critical] churn (local): monitoring failed"]  # fmt: skip
    assert [notice.severity for notice in receivers["receiver/oncall"].taken] == ["critical"]
    assert "growth-team@example.com" in receivers["receiver/team"].taken[0].body


def test_the_same_thing_told_twice_is_told_once(env: World, receivers: dict[str, Receiver]) -> None:
    drift(env)
    drift(env)
    drift(env, 2)
    assert deliver(env, receivers) == (1, 0, 0)


def test_a_receiver_that_is_down_for_an_hour_loses_nothing(env: World, receivers: dict[str, Receiver]) -> None:
    receivers["receiver/team"].up = False
    drift(env)
    emit_alert(env, "release.deployed", model="churn", sentence="it serves", alert_record_key="deployed 1", now=NOW)
    for minutes in range(0, 61, 5):
        deliver(env, receivers, timedelta(minutes=minutes))
    tried = [len(attempts) for _, attempts in env.outbox().undelivered()]
    assert len(tried) == 2
    assert all(3 <= times <= 8 for times in tried), "not at every look, and not given up"
    receivers["receiver/team"].up = True
    assert deliver(env, receivers, timedelta(minutes=80)) == (2, 0, 0)
    assert [notice.occasion for notice in receivers["receiver/team"].taken] == ["new", "news"]


def test_who_dies_after_the_receiver_took_it_sends_it_again_under_the_same_id(
    env: World, receivers: dict[str, Receiver]
) -> None:
    drift(env)
    receivers["receiver/team"].dies = True
    with pytest.raises(KeyboardInterrupt):
        deliver(env, receivers)
    receivers["receiver/team"].dies = False
    assert deliver(env, receivers) == (1, 0, 0)
    first, second = receivers["receiver/team"].taken
    assert first == second


def test_a_ledger_that_fails_while_it_is_told_has_everything_when_it_is_told_again(
    env: World, receivers: dict[str, Receiver]
) -> None:
    for fails in (1, 2, 3):
        env.outbox().fail_writes = 0  # type: ignore[attr-defined]
        drift(env, fails, subject_id=str(fails))
    for number in (4, 5):
        env.outbox().fail_writes = 1  # type: ignore[attr-defined]
        with pytest.raises(Unavailable):
            drift(env, number, subject_id=str(number))
        drift(env, number, subject_id=str(number))
    assert deliver(env, receivers) == (5, 0, 0)


def test_a_message_that_a_crash_kept_from_being_written_is_found(env: World, receivers: dict[str, Receiver]) -> None:
    channels, env.alerts = env.alerts, AlertRouting()
    drift(env)  # as if it had died between the signal and its messages
    env.alerts = channels
    assert deliver(env, receivers) == (1, 0, 0)


def test_what_lasts_is_told_again_and_its_end_too(env: World, receivers: dict[str, Receiver]) -> None:
    drift(env)
    deliver(env, receivers)
    assert deliver(env, receivers, timedelta(hours=25)) == (1, 0, 0)
    drift(env, 2, state="recovered")
    assert deliver(env, receivers) == (1, 0, 0)
    assert [notice.occasion for notice in receivers["receiver/team"].taken] == ["new", "reminder", "recovered"]
    assert open_causes(env.outbox(), NOW) == ()


def test_an_alert_that_somebody_looks_after_is_not_reminded_of(env: World, receivers: dict[str, Receiver]) -> None:
    drift(env)
    deliver(env, receivers)
    (cause,) = open_causes(env.outbox(), NOW)
    acknowledge(env, cause, Actor("max@example.com"), "on it", "terminal", NOW)
    assert deliver(env, receivers, timedelta(hours=25)) == (0, 0, 0)
    with pytest.raises(Refusal, match=cause):
        acknowledge(env, "another", Actor("max@example.com"), "", "terminal", NOW)


def test_requests_of_one_model_are_alerts_of_their_own(env: World, receivers: dict[str, Receiver]) -> None:
    for request in ("churn-1", "churn-2"):
        emit_alert(env, "approval.requested", model="churn", subject_id=request, sentence=request, alert_record_key=f"asked {request}",
             now=NOW)  # fmt: skip
    assert deliver(env, receivers) == (2, 0, 0)
    assert len(open_causes(env.outbox(), NOW)) == 2


def test_a_channel_that_is_gone_keeps_its_messages_and_says_why(env: World, receivers: dict[str, Receiver]) -> None:
    drift(env)
    del receivers["receiver/team"]
    assert deliver(env, receivers) == (0, 1, 0)
    env.alerts = AlertRouting()
    assert deliver(env, receivers, timedelta(hours=1)) == (0, 1, 0)
    ((_, attempts),) = env.outbox().undelivered()
    assert ["no notification block" in attempts[0].error, "no longer has the channel 'team'" in attempts[1].error] == [
        True,
        True,
    ]


def test_an_alert_is_told_also_when_the_model_cannot_be_read(env: World, receivers: dict[str, Receiver]) -> None:
    emit_alert(
        env, "model.monitoring.failed", model="gone", sentence="no such folder", alert_record_key="gone 1", now=NOW
    )
    assert deliver(env, receivers) == (2, 0, 0)
    assert "models/gone/model.yaml cannot be read" in receivers["receiver/team"].taken[0].body


def test_without_channels_an_alert_is_open_all_the_same(tmp_path: Path) -> None:
    env = World.at(tmp_path)
    drift(env)
    assert open_causes(env.outbox(), NOW) == ("churn/local/model.drift.detected",)
    assert env.outbox().undelivered() == ()


def test_an_event_that_prefect_does_not_take_leaves_the_alert_and_its_messages(
    env: World, receivers: dict[str, Receiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: object, **__: object) -> None:
        raise ConnectionError("the Prefect server does not answer")

    monkeypatch.setattr("tasks.shared.alerts.flow_run", SimpleNamespace(id="run-1"))
    monkeypatch.setattr("tasks.shared.alerts._run_link", dict)
    monkeypatch.setattr("tasks.shared.alerts.emit_event", down)
    drift(env)
    assert deliver(env, receivers)[0] >= 1
