"""The section `holdout` of `model.yaml`, and the rule that it declares: which rows evaluate and never train."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from tasks.shared.rules.model.data import DataSpec
from tasks.shared.rules.model.strict_record import StrictRecord, validation_error
from tasks.shared.rules.model.types import OneLineText, ProblemIterator
from tasks.shared.rules.refusal import Refusal

HoldoutKind = Literal["entity", "time", "group", "group_and_time"]

_BY_TIME, _BY_GROUP = ("time", "group_and_time"), ("group", "group_and_time")
_LEAST, _MOST = 0.0001, 0.5


@dataclass(frozen=True)
class HoldoutRule:
    """A rule that divides rows into training and holdout. Equal rules have equal `text`.

    Attributes:
        by: what the rows are divided by.
        share: of the entities or groups, by their hash; by time, the newest share of the rows. None with `since` alone.
        since: by time, the cut-off in UTC (ISO 8601), from which on rows are in the holdout; "" takes the newest share.
        gap_days: rows of so many days before the cut-off are in neither part.
        time: the column of the rows' time; "" when the rule does not divide by it.
        group: the column of the group; "" when the rule does not divide by it.
    """

    by: HoldoutKind
    share: float | None
    since: str = ""
    gap_days: float = 0.0
    time: str = ""
    group: str = ""

    @property
    def gap(self) -> timedelta:
        """The gap before the cut-off."""
        return timedelta(days=self.gap_days)

    @property
    def text(self) -> str:
        """The canonical text. By entity it is the share alone, as versions of earlier releases have it."""
        if self.by == "entity":
            return str(self.share)
        given = {name: value for name, value in asdict(self).items() if value not in (None, "", 0.0)}
        return json.dumps(given, sort_keys=True, ensure_ascii=False)

    @property
    def sentence(self) -> str:
        """The rule for people."""
        share = f"{self.share:g}" if self.share is not None else ""
        gap = f", after a gap of {self.gap_days:g} days" if self.gap_days else ""
        newest = f"rows since {self.since}{gap}" if self.since else f"newest {share} of the rows{gap}"
        return {
            "entity": f"{share} of the entities, by hash",
            "group": f"{share} of the groups ({self.group}), by hash",
            "time": f"{newest}, by {self.time}",
            "group_and_time": f"{newest}, by {self.time}, of {share} of the groups ({self.group}), by hash",
        }[self.by]


def parse_holdout_rule(text: str) -> HoldoutRule:
    """Return the rule of a canonical text. Raises Refusal when it is none."""
    try:
        value = json.loads(text)
        rule = HoldoutRule("entity", value) if isinstance(value, float) else HoldoutRule(**{"share": None, **value})
        if rule.text == text:
            return rule
    except (ValueError, TypeError):
        pass
    raise Refusal("is not a holdout rule", where="ratchet.holdout", value=text, remedy="Restore the recorded rule.")


def _utc_text(text: str) -> str:
    remedy = 'Write a time with its zone, in quotes: "2026-10-01T00:00:00Z".'
    try:
        at = datetime.fromisoformat(text)
        utc = at.astimezone(UTC).isoformat()
    except (ValueError, OverflowError) as cause:
        raise validation_error("is not a time", remedy) from cause
    if at.tzinfo is None:
        raise validation_error("has no time zone", remedy)
    return utc


class HoldoutSpec(StrictRecord):
    """Which rows evaluate and never train."""

    by: HoldoutKind | None = Field(
        default=None,
        description="What divides the rows. Default: `time` with `data.time`, `group` with `data.group`, "
        "`group_and_time` with both, else `entity`",
    )
    share: float | None = Field(
        default=None,
        ge=_LEAST,
        le=_MOST,
        description="Share of the entities or groups, by hash; by time, the newest share of the rows; by group and "
        "time, both. 0.2 without `since`",
    )
    since: Annotated[str, AfterValidator(_utc_text)] | None = Field(
        default=None,
        description='By time: rows from this time on are in the holdout, such as "2026-10-01T00:00:00Z", instead of '
        "the newest share",
    )
    gap_days: float = Field(
        default=0.0,
        ge=0,
        le=3660,
        description="By time: rows of so many days before the cut-off are in neither part. As long as labels take",
    )
    reason: OneLineText | None = Field(
        default=None,
        description="Why the holdout does not divide by `data.time` or `data.group` although it is declared",
    )


def _holdout_tag(value: object) -> str:
    return "<union mapping>" if isinstance(value, dict | HoldoutSpec) else "<union share>"


HoldoutChoice = Annotated[
    Annotated[float, Field(ge=_LEAST, le=_MOST), Tag("<union share>")] | Annotated[HoldoutSpec, Tag("<union mapping>")],
    Discriminator(_holdout_tag),
]
"""A share, or the mapping."""


def holdout_rule(holdout: float | HoldoutSpec, data: DataSpec) -> HoldoutRule:
    """Return the rule that a model's `holdout` declares."""
    spec = holdout if isinstance(holdout, HoldoutSpec) else HoldoutSpec(share=holdout)
    by = spec.by or _default_kind(data)
    needs_share = spec.since is None or by != "time"
    return HoldoutRule(
        by=by,
        share=spec.share if spec.share is not None else 0.2 if needs_share else None,
        since=spec.since or "",
        gap_days=float(spec.gap_days),
        time=(data.time or "") if by in _BY_TIME else "",
        group=(data.group or "") if by in _BY_GROUP else "",
    )


def _default_kind(data: DataSpec) -> HoldoutKind:
    if data.time:
        return "group_and_time" if data.group else "time"
    return "group" if data.group else "entity"


def holdout_problems(holdout: float | HoldoutSpec, data: DataSpec) -> ProblemIterator:
    """Yield the problems of `holdout`, given the columns of `data`."""
    if not isinstance(holdout, HoldoutSpec):
        return
    by = holdout.by or _default_kind(data)
    declared = {"time": (data.time, _BY_TIME), "group": (data.group, _BY_GROUP)}
    for name, (column, kinds) in declared.items():
        if by in kinds and not column:
            yield ("by",), validation_error(f"needs data.{name}", f"Declare data.{name}, or take {name} out of `by`.")
        elif column and by not in kinds and not holdout.reason:
            problem = f"does not divide by data.{name}, {column}, and gives no reason"
            remedy = f"Write `by: {_default_kind(data)}`, or give a `reason` why rows of the holdout need not be "
            yield ("by",), validation_error(problem, remedy + ("newer." if name == "time" else "of other groups."))
    if by not in _BY_TIME:
        given: dict[str, Any] = {"since": holdout.since, "gap_days": holdout.gap_days}
        for key in (key for key, value in given.items() if value):
            yield (key,), validation_error(f"does not go with by: {by}", "Take it out, or divide by time.")
    elif by == "time" and holdout.since and holdout.share is not None:
        yield ("since",), validation_error("does not go with share: both say where the holdout begins", "Keep one.")
