"""Request counts of an endpoint by time interval: totals, errors and latencies, never contents."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import ceil, log10

MIN_LATENCY_BIN, MAX_LATENCY_BIN = -10, 50
"""The first bin (up to 0.1 ms) and the last bin (everything above 79 s)."""


@dataclass(frozen=True)
class TrafficInterval:
    """The request counts of one time interval.

    `client_errors` counts 4xx responses, `server_errors` 5xx responses and timeouts; both are included in `requests`.
    `latency_bins` counts requests by latency: bin k holds those of at most 10 ** (k / 10) ms.
    """

    start: datetime
    interval_seconds: int
    requests: int
    client_errors: int
    server_errors: int
    latency_bins: Mapping[int, int] = field(default_factory=dict)


def latency_bin(milliseconds: float) -> int:
    """Return the latency bin of a response time."""
    return MIN_LATENCY_BIN if milliseconds <= 0.1 else min(MAX_LATENCY_BIN, ceil(10 * log10(milliseconds)))
