"""How often an endpoint was asked, how it fared, and how long its answers took: counts, never contents."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import ceil, log10

MIN_LATENCY_BIN, MAX_LATENCY_BIN = -10, 50
"""The first and the last bin: up to 0.1 ms, and everything above 79 s."""


@dataclass(frozen=True)
class TrafficInterval:
    """The requests of one stretch of time.

    `client_errors` are answers 4xx, `server_errors` 5xx and those that did not come in time; both are among `requests`. `latency_bins`
    counts the requests by the tenth of a decade of their milliseconds: bin k those of at most 10 ** (k / 10) ms.
    """

    start: datetime
    interval_seconds: int
    requests: int
    client_errors: int
    server_errors: int
    latency_bins: Mapping[int, int] = field(default_factory=dict)


def latency_bin(milliseconds: float) -> int:
    """Return the bin of an answer's time."""
    return MIN_LATENCY_BIN if milliseconds <= 0.1 else min(MAX_LATENCY_BIN, ceil(10 * log10(milliseconds)))
