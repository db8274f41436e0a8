"""Run logs in CloudWatch: a log call never blocks or fails a flow run, and lost lines are reported."""

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.common.aws.cloudwatch_logs import (
    MAX_BATCH_BYTES,
    MAX_BATCH_EVENTS,
    MAX_EVENT_BYTES,
    OWN,
    Limits,
    LogGroup,
    LogLine,
    RunLogHandler,
    Send,
    attach,
    event_batches,
)
from blocks.common.errors import NotFound, Rejected, Unavailable
from tests.fixtures.local_aws import SageMakerLab
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
QUICK = Limits(seconds=0.02, retry_seconds=0.02, at_end_seconds=120)
NOW = time.time()


def log_group(desk: SageMakerLab) -> LogGroup:
    group = f"/ratchet/{desk.bucket}"
    desk.logs.create_log_group(logGroupName=group)
    return LogGroup(group=group, region="us-east-1", endpoint_url=desk.server.url)


def read(desk: SageMakerLab, logs: LogGroup, run: str) -> list[str]:
    found = desk.logs.get_log_events(logGroupName=logs.group, logStreamName=run, startFromHead=True)["events"]
    return [str(event["message"]) for event in found]


def test_lines_are_kept_in_order_by_flow_run(desk: SageMakerLab) -> None:
    logs = log_group(desk)
    logs.send("retrain/1", [LogLine(NOW, "first"), LogLine(NOW + 0.5, "second\nwith a traceback")])
    logs.send("retrain/2", [LogLine(NOW, "of another run")])
    logs.send("retrain/1", [LogLine(NOW + 1, "third")])
    assert read(desk, logs, "retrain/1") == ["first", "second\nwith a traceback", "third"]
    assert read(desk, logs, "retrain/2") == ["of another run"]


def test_a_run_that_goes_on_in_another_process_goes_on_in_its_stream(desk: SageMakerLab) -> None:
    logs = log_group(desk)
    logs.send("retrain/1", [LogLine(NOW, "before")])
    LogGroup(group=logs.group, region="us-east-1", endpoint_url=desk.server.url).send(
        "retrain/1", [LogLine(NOW, "after")]
    )
    assert read(desk, logs, "retrain/1") == ["before", "after"]


def test_a_group_that_nobody_made_is_not_found(desk: SageMakerLab) -> None:
    with pytest.raises(NotFound):
        LogGroup(group="/nobody", region="us-east-1", endpoint_url=desk.server.url).send("r/1", [LogLine(NOW, "x")])


def test_a_service_that_is_away_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):  # without them boto3 would not even try to reach AWS
        monkeypatch.setenv(name, "testing")
    with pytest.raises(Unavailable):
        LogGroup(group="/a", region="us-east-1", endpoint_url="http://127.0.0.1:9").send("r/1", [LogLine(NOW, "x")])


texts = st.text(st.characters(codec="utf-8"), max_size=200) | st.just("ü" * MAX_EVENT_BYTES)


@given(st.lists(st.tuples(st.floats(0, 2e5), texts), max_size=40))
def test_every_batch_is_within_cloudwatch_s_limits_and_no_line_is_lost(lines: list[tuple[float, str]]) -> None:
    made = list(event_batches([LogLine(NOW + at, text) for at, text in lines]))
    assert sum(map(len, made)) == len(lines)
    for batch in made:
        times = [event["timestamp"] for event in batch]
        assert len(batch) <= MAX_BATCH_EVENTS and times == sorted(times) and times[-1] - times[0] < 24 * 3_600_000
        assert sum(len(event["message"].encode()) + 26 for event in batch) <= MAX_BATCH_BYTES
        assert all(event["message"] for event in batch)


def test_many_lines_are_parted_by_their_number() -> None:
    assert [len(each) for each in event_batches([LogLine(NOW, "x")] * (MAX_BATCH_EVENTS + 1))] == [MAX_BATCH_EVENTS, 1]


class Sent:
    """The target of a handler under test: lists of lines by flow run, with faults on demand."""

    def __init__(self, *, unavailable: int = 0, refused: bool = False) -> None:
        self.unavailable, self.refused = unavailable, refused
        self.calls: list[int] = []
        self.lines: dict[str, list[LogLine]] = {}

    def kept(self, run: str) -> list[str]:
        return [line.text for line in self.lines.get(run, ())]

    def __call__(self, run: str, lines: Sequence[LogLine]) -> None:
        self.calls.append(len(lines))
        if self.refused:
            raise Rejected("the fake refuses every line")
        if len(self.calls) <= self.unavailable:
            raise Unavailable("the fake does not answer yet")
        self.lines.setdefault(run, []).extend(lines)


class Run:
    """A flow run as Prefect's loggers know it, and what its handler reported."""

    def __init__(self, send: Send, limits: Limits = QUICK) -> None:
        self.told: list[str] = []
        self.detach = attach(send, "retrain/1", "flow-1", self.told.append, limits)
        (self.handler,) = [
            each for each in logging.getLogger("prefect.flow_runs").handlers if isinstance(each, RunLogHandler)
        ]

    def say(
        self, text: str, *values: object, name: str = "prefect.flow_runs", flow_run: str = "flow-1", **more: Any
    ) -> None:
        about = {"flow_run_id": flow_run, "flow_run_name": "churn", "flow_name": "retrain", "task_run_name": "train-0",
                 "task_name": "train", "task_run_id": "t"} | more  # fmt: skip
        logging.getLogger(name).handle(logging.getLogger(name).makeRecord(
            name, logging.INFO, "f.py", 1, text, values, None, extra=about))  # fmt: skip


@pytest.fixture(autouse=True)
def only_ours() -> Iterator[None]:
    """Remove Prefect's own handlers, which need a server."""
    loggers = [logging.getLogger(name) for name in ("prefect.flow_runs", "prefect.task_runs")]
    before = [(each, list(each.handlers), each.propagate) for each in loggers]
    for each in loggers:
        each.handlers, each.propagate = [], False
    yield
    for each, handlers, propagate in before:
        each.handlers, each.propagate = handlers, propagate


def test_what_flow_and_tasks_say_is_sent_and_what_others_say_is_not() -> None:
    logs = Sent()
    run = Run(logs)
    run.say("sampled %d rows", 7)
    run.say("trained", name="prefect.task_runs")
    run.say("not ours", flow_run="flow-2")
    run.say("our own word", **{OWN: True})
    run.detach()
    assert logs.kept("retrain/1") == ["INFO train-0: sampled 7 rows", "INFO train-0: trained"]
    assert (run.handler.sent, run.handler.dropped, run.told) == (2, 0, [])


def test_it_is_attached_once_however_often_it_is_asked_for() -> None:
    run = Run(Sent())
    attach(Sent(), "retrain/1", "flow-1", run.told.append, QUICK)()
    assert sum(isinstance(each, RunLogHandler) for each in logging.getLogger("prefect.flow_runs").handlers) == 1
    run.detach()


def test_a_service_that_comes_back_gets_all_of_it_and_the_trouble_is_told_once() -> None:
    logs = Sent(unavailable=3)
    run = Run(logs)
    for number in range(50):
        run.say(f"line {number}")
    wait_for(lambda: run.handler.sent == 50)
    run.detach()
    assert logs.kept("retrain/1") == [f"INFO train-0: line {number}" for number in range(50)]
    assert len(run.told) == 1 and "does not answer yet" in run.told[0]


def test_what_finds_no_room_is_dropped_counted_and_said_where_it_is_missing() -> None:
    logs = Sent(unavailable=1)
    run = Run(logs, Limits(lines=5, seconds=0.02, retry_seconds=3_600, at_end_seconds=120))
    for number in range(12):
        run.say(f"line {number}")
    assert run.handler.dropped == 7
    run.detach()
    first, *others = logs.kept("retrain/1")
    assert first.startswith("WARNING 7 lines were dropped here") and len(others) == 5


def test_what_will_never_be_taken_is_told_counted_and_not_tried_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    logs = Sent(refused=True)
    run = Run(logs)
    run.say("line 0")
    wait_for(lambda: run.handler.dropped)
    run.say("line 1")
    run.say("line 2")
    run.detach()
    assert len(run.told) == 1 and "refuses every line" in run.told[0]
    assert len(logs.calls) == 1 and run.handler.dropped == 3
    assert "3 log lines of retrain/1 were not stored: the fake refuses every line" in caplog.text


def test_a_line_that_cannot_be_written_is_dropped_and_nothing_is_raised() -> None:
    logs = Sent()
    run = Run(logs)
    wrong = logging.LogRecord("prefect.flow_runs", logging.INFO, "f.py", 1, "%d rows", ("seven",), None)
    wrong.flow_run_id = "flow-1"
    run.handler.handle(wrong)
    run.say("fine")
    run.detach()
    assert "cannot be formatted" in run.handler.problem and run.handler.dropped == 1
    assert logs.kept("retrain/1")[-1] == "INFO train-0: fine"


def broken(run: str, lines: Sequence[LogLine]) -> None:
    raise ZeroDivisionError("a mistake")


def test_a_mistake_in_sending_reaches_nobody() -> None:
    run = Run(broken)
    run.say("line")
    run.detach()
    assert run.handler.dropped == 1 and run.told == [
        "log lines are in Prefect's own log only, and not in CloudWatch: a mistake"
    ]


class Stuck(Sent):
    """A service that accepts a call and responds only when it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.let = threading.Event(), threading.Event()

    def __call__(self, run: str, lines: Sequence[LogLine]) -> None:
        self.asked.set()
        self.let.wait()


def test_a_run_is_not_held_up_by_a_service_that_does_not_answer_nor_is_its_end() -> None:
    """A handler that waited for the service would wait for ever."""
    stuck = Stuck()
    run = Run(stuck, Limits(seconds=0.02, at_end_seconds=0.2))
    run.say("line 0")
    assert stuck.asked.wait(120)
    for number in range(1, 5_000):
        run.say(f"line {number}")
    run.detach()
    assert run.handler.dropped == 5_000
    stuck.let.set()


def test_with_aws_away_lines_are_dropped_and_its_address_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):  # without them boto3 would not even try to reach AWS
        monkeypatch.setenv(name, "testing")
    away = LogGroup(group="/ratchet", region="us-east-1", endpoint_url="http://127.0.0.1:9")
    run = Run(away.send, Limits(at_end_seconds=1))
    for number in range(5_000):
        run.say(f"line {number}")
    wait_for(lambda: run.handler.problem, what="the first attempt, which fails")
    run.detach()
    assert run.handler.dropped == 5_000 and "127.0.0.1:9" in run.handler.problem


PROGRAM = """
import logging, sys
from blocks.common.aws.cloudwatch_logs import Limits, LogGroup, attach
logs = LogGroup(group=sys.argv[1], region="us-east-1", endpoint_url=sys.argv[2])
attach(logs.send, "retrain/ended", "flow-9", print, Limits(at_end_seconds=120))
logger = logging.getLogger("prefect.task_runs")
logger.handlers = logger.handlers[-1:]
logger.setLevel(logging.INFO)
for number in range(100):
    logger.info("line %d", number, extra={"flow_run_id": "flow-9"})
if sys.argv[3] == "fails":
    raise SystemExit("the flow failed")
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ends", "fails"])
def test_the_last_lines_are_sent_when_the_process_ends(desk: SageMakerLab, how: str) -> None:
    logs = log_group(desk)
    command = [sys.executable, "-c", PROGRAM, logs.group, desk.server.url, how]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == (how == "fails"), done.stderr
    assert read(desk, logs, "retrain/ended") == [f"INFO line {number}" for number in range(100)]
