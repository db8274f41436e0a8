"""SVG charts: time and value axes, bars, lines and marks, each with a tooltip.

Colours, widths and fonts come from the page's style sheet by class, so that a chart works in light and dark mode.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import ceil, floor, log10

from markupsafe import Markup

from tasks.dashboard.rules.words import axis_number, escape_text

WIDTH, HEIGHT = 480, 200
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 14, 24
_MINUTES = (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 7200, 10080, 20160, 43200, 86400, 262800, 525600)
_MOST_TICKS = 5


@dataclass(frozen=True)
class PlotArea:
    """The plot area of a chart: the ranges of its time and value axes."""

    first: datetime
    last: datetime
    bottom: float
    top: float

    def x(self, at: datetime) -> float:
        """Return the x coordinate of a time, clipped to the plot area."""
        part = (at - self.first) / (self.last - self.first)
        return round(LEFT + min(max(part, 0.0), 1.0) * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        """Return the y coordinate of a value, clipped to the plot area."""
        part = (value - self.bottom) / (self.top - self.bottom)
        return round(HEIGHT - BOTTOM - min(max(part, 0.0), 1.0) * (HEIGHT - TOP - BOTTOM), 1)


def plot_area_for(times: Sequence[datetime], values: Sequence[float], *, bottom: float | None = 0.0) -> PlotArea:
    """Return a plot area for all times and values, with some room above. Values start at `bottom`, or fit if None."""
    first, last = min(times), max(times)
    if last - first < timedelta(minutes=1):
        first, last = first - timedelta(seconds=30), last + timedelta(seconds=30)
    high = max(values, default=1.0)
    low = min(values, default=0.0) if bottom is None else bottom
    room = (high - low) * 0.12 or abs(high) * 0.1 or 1.0
    return PlotArea(first, last, low - room if bottom is None else low, high + room)


def chart(
    label: str, inside: PlotArea, parts: Iterable[str], ticks: Sequence[tuple[datetime, str]] | None = None
) -> Markup:
    """Return a chart with its axes and parts. `label` describes it for screen readers.

    `ticks` are the labelled times of the axis; by default round times.
    """
    named = time_ticks(inside.first, inside.last) if ticks is None else ticks
    return Markup(  # noqa: S704  (every text in it was escaped)
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape_text(label, 500)}">'
        f"{''.join((*_values_axis(inside), *parts, *_time_axis(inside, named)))}</svg>"
    )


def line(inside: PlotArea, points: Sequence[tuple[datetime, float | None]], kind: str) -> str:
    """Return a line through the points. A missing value interrupts it, and a single point is drawn as a dot."""
    strokes: list[list[str]] = [[]]
    for at, value in points:
        if value is None:
            strokes.append([])
        else:
            strokes[-1].append(f"{inside.x(at)},{inside.y(value)}")
    drawn = [f'<polyline class="line {kind}" points="{" ".join(each)}"/>' for each in strokes if len(each) > 1]
    single_points = [each[0].split(",") for each in strokes if len(each) == 1]
    return "".join([*drawn, *(f'<circle class="dot {kind}" cx="{x}" cy="{y}" r="2.5"/>' for x, y in single_points)])


def step_line(inside: PlotArea, points: Sequence[tuple[datetime, float]], kind: str) -> str:
    """Return a step line that keeps each value until the next point, with the area below it."""
    path = [f"M{inside.x(points[0][0])},{inside.y(points[0][1])}"]
    path += [f"H{inside.x(at)}V{inside.y(value)}" for _, (at, value) in pairwise(points)]
    path.append(f"H{inside.x(inside.last)}")
    whole = "".join(path)
    floor_ = inside.y(inside.bottom)
    area = f"{whole}V{floor_}H{inside.x(points[0][0])}Z"
    return f'<path class="area {kind}" d="{area}"/><path class="line {kind}" d="{whole}"/>'


def bar(left: float, width: float, inside: PlotArea, low: float, high: float, kind: str, words: str) -> str:
    """Return a bar from one value to another, with a tooltip."""
    top, bottom = inside.y(high), inside.y(low)
    height = round(bottom - top, 1)
    return (
        f'<rect class="bar {kind}" x="{left:.1f}" y="{top}" width="{max(width, 0.5):.1f}" height="{height}">'
        f"<title>{escape_text(words)}</title></rect>"
    )


def threshold_line(inside: PlotArea, value: float, words: str) -> str:
    """Return a dashed horizontal line at a value, with its name at the left end."""
    y = inside.y(value)
    return (
        f'<line class="level" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
        f'<text class="tick" x="{LEFT + 4}" y="{y - 4}">{escape_text(words, 40)}</text>'
    )


def event_line(inside: PlotArea, at: datetime, words: str, long: str) -> str:
    """Return a vertical line at a time, with a short name on top."""
    x, bottom = inside.x(at), HEIGHT - BOTTOM
    anchor = "end" if x > WIDTH - 60 else "middle" if x > LEFT + 20 else "start"
    return (
        f'<g><title>{escape_text(long)}</title><line class="event" x1="{x}" x2="{x}" y1="{TOP}" y2="{bottom}"/>'
        f'<text class="tick {anchor}" x="{x}" y="{TOP - 4}">{escape_text(words, 12)}</text></g>'
    )


def time_band(inside: PlotArea, begin: datetime, end: datetime, kind: str, words: str) -> str:
    """Return a shaded time range, with a flag at its begin."""
    x, far, bottom = inside.x(begin), inside.x(end), HEIGHT - BOTTOM
    width = max(round(far - x, 1), 2.0)
    flag = f"M{x},{bottom}V{TOP + 2}l9,4l-9,4Z"
    return (
        f'<g class="{kind}"><title>{escape_text(words)}</title>'
        f'<rect class="band" x="{x}" y="{TOP}" width="{width}" height="{bottom - TOP}"/>'
        f'<path class="flag" d="{flag}"/></g>'
    )


_SHAPES = {
    "dot": "M{x},{y}m-2.5,0a2.5,2.5 0 1,0 5,0a2.5,2.5 0 1,0 -5,0Z",
    "circle": "M{x},{y}m-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0Z",
    "diamond": "M{x},{y}m0,-5.5l5.5,5.5l-5.5,5.5l-5.5,-5.5Z",
    "triangle": "M{x},{y}m0,-5.5l5.5,9.5h-11Z",
    "square": "M{x},{y}m-4,-4h8v8h-8Z",
}


def mark(inside: PlotArea, at: datetime, value: float, shape: str, kind: str, words: str) -> str:
    """Return a mark at a point. Kinds differ by shape as well as by colour."""
    path = _SHAPES[shape].format(x=inside.x(at), y=inside.y(value))
    return f'<path class="mark {kind}" d="{path}"><title>{escape_text(words, 500)}</title></path>'


def interval_bar(inside: PlotArea, at: datetime, low: float, high: float, kind: str) -> str:
    """Return a vertical line between two values."""
    x = inside.x(at)
    return f'<line class="whisker {kind}" x1="{x}" x2="{x}" y1="{inside.y(low)}" y2="{inside.y(high)}"/>'


def sparkline(values: Sequence[float | None], most: float, label: str) -> Markup:
    """Return a small line without axes. `most` is the value at its full height."""
    wide, high = 90, 20
    known = [(at, value) for at, value in enumerate(values) if value is not None]
    across = (wide - 6) / max(len(values) - 1, 1)
    places = [
        (round(3 + at * across, 1), round(high - 3 - min(value / (most or 1), 1) * (high - 6), 1))
        for at, value in known
    ]
    points = " ".join(f"{x},{y}" for x, y in places)
    end = f'<circle class="dot a" cx="{places[-1][0]}" cy="{places[-1][1]}" r="2.5"/>' if places else ""
    return Markup(  # noqa: S704  (the label was escaped)
        f'<svg class="spark" viewBox="0 0 {wide} {high}" role="img" aria-label="{escape_text(label)}">'
        f'<polyline class="line a" points="{points}"/>{end}</svg>'
    )


def nice_ticks(bottom: float, top: float) -> tuple[float, ...]:
    """Return three to six round values in a range."""
    size = 10.0 ** floor(log10((top - bottom) / 4))
    step = next(size * by for by in (1, 2, 5, 10) if (top - bottom) / (size * by) <= 5)
    begin = ceil(bottom / step - 1e-9)
    return tuple(round(number * step, 12) for number in range(begin, begin + 7) if number * step <= top * (1 + 1e-9))


def time_ticks(first: datetime, last: datetime) -> tuple[tuple[datetime, str], ...]:
    """Return a few round times in a range (UTC), each with its label."""
    within = last - first
    step = timedelta(
        minutes=next((each for each in _MINUTES if within / timedelta(minutes=each) <= _MOST_TICKS), _MINUTES[-1])
    )
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    begin = epoch - (epoch - first) // step * step
    times = [begin + number * step for number in range(_MOST_TICKS + 1) if begin + number * step <= last]
    form = "%b %Y" if step >= timedelta(days=60) else "%d %b" if step >= timedelta(days=1) else "%H:%M"
    return tuple(
        (at, f"{at:%d %b}" if form == "%H:%M" and (at.hour, at.minute) == (0, 0) else f"{at:{form}}") for at in times
    )


def _time_axis(inside: PlotArea, ticks: Sequence[tuple[datetime, str]]) -> list[str]:
    floor_ = HEIGHT - BOTTOM
    parts = [f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{floor_}" y2="{floor_}"/>']
    for at, label in ticks:
        x = inside.x(at)
        anchor = "end" if x > WIDTH - 30 else "middle"
        parts.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{floor_}" y2="{floor_ + 4}"/>')
        parts.append(f'<text class="tick {anchor}" x="{x}" y="{HEIGHT - 6}">{label}</text>')
    return parts


def _values_axis(inside: PlotArea) -> list[str]:
    parts = []
    for value in nice_ticks(inside.bottom, inside.top):
        y = inside.y(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="tick end" x="{LEFT - 6}" y="{y + 3.5}">{axis_number(value)}</text>')
    return parts
