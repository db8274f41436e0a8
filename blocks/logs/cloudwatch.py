"""CloudWatch: a log group for an environment, a stream for each flow run."""

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import Field, PrivateAttr

from blocks.common.aws.calls import code, hasty_client, port_errors
from blocks.logs.base import LogLine, RunLogs

MOST_EVENTS = 10_000
MOST_BYTES = 1_048_576
EVENT_BYTES = 26
"""What CloudWatch counts of each event beside its text; all three are its limits for one call."""
LONGEST = 250_000
"""The longest text of one event, in bytes; a longer one is cut."""
LONGEST_SPAN_SECONDS = 23 * 3600.0
"""A call may not span more than 24 hours."""


class CloudWatchLogs(RunLogs):
    """Sends to a log group, which somebody has made (Terraform, with its retention): what is not there is an error."""

    _block_type_name = "Ratchet logs: CloudWatch"
    _block_type_slug = "ratchet-logs-cloudwatch"

    group: str = Field(description="The log group, such as /ratchet/production; it exists.")
    region: str | None = Field(default=None, description="AWS region; boto3's own choice when none.")
    endpoint_url: str | None = Field(default=None, description="Another address than AWS: the local SageMaker's.")

    _streams: set[str] = PrivateAttr(default_factory=set)

    def send(self, run: str, lines: Sequence[LogLine]) -> None:
        """Put the lines into the run's stream, in as many calls as CloudWatch's limits ask for."""
        with port_errors(f"sending {len(lines)} log lines to {self.group}"):
            logs = hasty_client("logs", self.region, self.endpoint_url)
            stream = run.replace(":", "-").replace("*", "-")
            if stream not in self._streams:
                self._make(logs, stream)
            for batch in batches(lines):
                logs.put_log_events(logGroupName=self.group, logStreamName=stream, logEvents=batch)

    def _make(self, logs: Any, stream: str) -> None:
        from botocore.exceptions import ClientError

        try:
            logs.create_log_stream(logGroupName=self.group, logStreamName=stream)
        except ClientError as error:
            if code(error) != "ResourceAlreadyExistsException":  # an earlier process of the same run
                raise
        self._streams.add(stream)


def batches(lines: Sequence[LogLine]) -> Iterator[list[dict[str, Any]]]:
    """Yield events for one call each, in the order of their times, as CloudWatch wants them."""
    batch: list[dict[str, Any]] = []
    size = 0
    for line in sorted(lines, key=lambda each: each.at):
        event, needed = _event(line)
        too_long = batch and line.at * 1000 - batch[0]["timestamp"] > LONGEST_SPAN_SECONDS * 1000
        if batch and (len(batch) == MOST_EVENTS or size + needed > MOST_BYTES or too_long):
            yield batch
            batch, size = [], 0
        batch.append(event)
        size += needed
    if batch:
        yield batch


def _event(line: LogLine) -> tuple[dict[str, Any], int]:
    text = line.text.encode(errors="replace")
    if len(text) > LONGEST:
        text = text[:LONGEST] + f" … cut: {len(text):,} bytes".encode()
    shown = text.decode(errors="ignore") or " "  # an empty message is refused
    return {"timestamp": int(line.at * 1000), "message": shown}, len(shown.encode()) + EVENT_BYTES
