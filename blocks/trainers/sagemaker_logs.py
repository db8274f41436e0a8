"""A training job's log in CloudWatch: its streams one after the other (one an instance), each line once."""

from dataclasses import dataclass, field
from typing import Any

from blocks.common.aws.clients import is_missing

LOG_GROUP = "/aws/sagemaker/TrainingJobs"


@dataclass
class TrainingLogReader:
    """What was read of one job's log so far. CloudWatch counts by tokens, the port by lines."""

    client: Any
    job: str
    _tokens: dict[str, str] = field(default_factory=dict)
    _lines: list[str] = field(default_factory=list)

    def lines_after(self, position: int) -> list[str]:
        """Read on, and return all lines after the first `position`."""
        for stream in self._streams():
            self._read(stream)
        return self._lines[position:]

    def _streams(self) -> list[str]:
        """Return the job's streams, oldest first: their names end with the time at which they began."""
        from botocore.exceptions import ClientError

        try:
            pages = self.client.get_paginator("describe_log_streams").paginate(
                logGroupName=LOG_GROUP, logStreamNamePrefix=f"{self.job}/"
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
                logGroupName=LOG_GROUP, logStreamName=stream, startFromHead=True, **more
            )  # fmt: skip
            self._lines += [str(event["message"]).rstrip("\n") for event in page["events"]]
            self._tokens[stream] = page["nextForwardToken"]
            if page["nextForwardToken"] == token:  # CloudWatch's word for the end; a page may well be empty before it
                return
