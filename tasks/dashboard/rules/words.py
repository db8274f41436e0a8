"""Formats of times, amounts and texts on a dashboard."""

from datetime import datetime, timedelta

from markupsafe import Markup, escape

from runtime.foreign_text import one_line

_BYTES = ("B", "kB", "MB", "GB", "TB", "PB")
_MAX_TEXT_LENGTH = 300


def escape_text(value: object, most: int = _MAX_TEXT_LENGTH) -> Markup:
    """Return a value as HTML text on one line: escaped, what nobody sees shown, and shortened when it is very long."""
    return escape(one_line(value, most))


def relative_time(at: datetime, now: datetime) -> str:
    """Return a time relative to now: "3 hours ago", "in 2 days"."""
    difference = now - at
    duration = duration_text(abs(difference))
    return f"{duration} ago" if difference >= timedelta(0) else f"in {duration}"


def duration_text(duration: timedelta) -> str:
    """Return a duration in the largest unit with at least two of it: "90 minutes", "36 hours", "3 days"."""
    seconds = duration.total_seconds()
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}s"
    return f"{int(seconds)} second{'s' * (int(seconds) != 1)}"


def latency_text(value: float | None) -> str:
    """Return a latency such as "7.6 ms" or "1.2 s"; a dash for None."""
    if value is None:
        return "–"
    return f"{value / 1000:.3g} s" if value >= 1000 else f"{value:.3g} ms"


def bytes_text(value: int) -> str:
    """Return bytes such as "3.4 MB"."""
    amount, place = float(value), 0
    while amount >= 1000 and place < len(_BYTES) - 1:
        amount, place = amount / 1000, place + 1
    return f"{amount:.3g} {_BYTES[place]}" if place else f"{value} B"


def percent_text(part: int, whole: int) -> str:
    """Return a share such as "0.4%"; a dash when the whole is 0."""
    return "–" if not whole else f"{part / whole:.1%}"


def axis_number(value: float) -> str:
    """Return the tick label of a number: "1.2k" for 1200."""
    for size_, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size_:
            return f"{value / size_:.3g}{sign}"
    return f"{value:.3g}"
