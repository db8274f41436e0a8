"""The end of a job's log in CloudWatch: what a container said last."""

from typing import Any

from blocks.common.aws.clients import is_missing

MAX_STREAMS = 5
"""How many streams are looked at: instances, and SageMaker's own notes on the data."""


def last_log_lines(client: Any, group: str, prefix: str, count: int = 10) -> list[str]:
    """Return the last lines of the streams whose names begin so, the newest of each; none where there is no log."""
    from botocore.exceptions import ClientError

    try:
        found = client.describe_log_streams(logGroupName=group, logStreamNamePrefix=prefix)["logStreams"]
        streams = sorted(stream["logStreamName"] for stream in found)[-MAX_STREAMS:]
        pages = [client.get_log_events(logGroupName=group, logStreamName=name, startFromHead=False, limit=count)
                 for name in streams]  # fmt: skip
    except ClientError as error:
        if is_missing(error):
            return []
        raise
    return [str(event["message"]).rstrip("\n") for page in pages for event in page["events"]][-count:]
