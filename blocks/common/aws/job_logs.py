"""Reads the logs of SageMaker jobs in CloudWatch: the last lines, or all lines of a training job one by one."""

from dataclasses import dataclass, field
from typing import Any

from blocks.common.aws.clients import is_missing

MAX_STREAMS = 5
"""Maximum number of streams to read: one per instance, and SageMaker's own on the data."""


def last_log_lines(client: Any, group: str, prefix: str, count: int = 10) -> list[str]:
    """Return the last lines of the streams whose names start with `prefix`; none if there is no log."""
    from botocore.exceptions import ClientError

    try:
        description = client.describe_log_streams(logGroupName=group, logStreamNamePrefix=prefix)
        streams = sorted(stream["logStreamName"] for stream in description["logStreams"])[-MAX_STREAMS:]
        pages = [client.get_log_events(logGroupName=group, logStreamName=name, startFromHead=False, limit=count)
                 for name in streams]  # fmt: skip
    except ClientError as error:
        if is_missing(error):
            return []
        raise
    return [str(event["message"]).rstrip("\n") for page in pages for event in page["events"]][-count:]


TRAINING_LOG_GROUP = "/aws/sagemaker/TrainingJobs"


@dataclass
class TrainingLogReader:
    """The lines of one job's log that were read so far. CloudWatch pages by tokens, the port by lines."""

    client: Any
    job: str
    _tokens: dict[str, str] = field(default_factory=dict)
    _lines: list[str] = field(default_factory=list)

    def lines_after(self, position: int) -> list[str]:
        """Read new lines, and return all lines after the first `position`."""
        for stream in self._streams():
            self._read(stream)
        return self._lines[position:]

    def _streams(self) -> list[str]:
        """Return the job's streams, oldest first: their names end with their start time."""
        from botocore.exceptions import ClientError

        try:
            pages = self.client.get_paginator("describe_log_streams").paginate(
                logGroupName=TRAINING_LOG_GROUP, logStreamNamePrefix=f"{self.job}/"
            )
            return sorted(stream["logStreamName"] for page in pages for stream in page["logStreams"])
        except ClientError as error:
            if is_missing(error):  # no job has ever logged here
                return []
            raise

    def _read(self, stream: str) -> None:
        while True:
            token = self._tokens.get(stream)
            more = {"nextToken": token} if token else {}
            page = self.client.get_log_events(
                logGroupName=TRAINING_LOG_GROUP, logStreamName=stream, startFromHead=True, **more
            )  # fmt: skip
            self._lines += [str(event["message"]).rstrip("\n") for event in page["events"]]
            self._tokens[stream] = page["nextForwardToken"]
            if page["nextForwardToken"] == token:  # this is the end; an empty page may come before it
                return
