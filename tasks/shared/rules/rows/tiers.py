"""The rows of a tier and of its parts, by time or by the hash of an entity or group, which later data do not move."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from tasks.shared.rules import sql
from tasks.shared.rules.model.data import TierSpec
from tasks.shared.rules.model.holdout import HoldoutRule
from tasks.shared.rules.refusal import Refusal
from tasks.shared.rules.rows.buckets import BUCKET_COLUMN, BUCKETS

TIERS = ("development", "staging", "full")
"""The tiers, smallest first; each holds the one before it."""

MAX_STRATA = 200
"""The largest number of values of a column by which a tier is stratified."""


@dataclass(frozen=True)
class TierRule:
    """The entities of a tier: those below a bucket, or below the bucket of their stratum.

    Attributes:
        bound: all entities of the tier have a lower bucket than this; 10,000 means all entities.
        column: the column that divides the entities into strata; "" for none.
        strata: the bound of each value of `column`, as text; None is the stratum of nulls.
        group: the column whose bucket counts, computed as rows are read; "" is the entity's, which the lake stores.
    """

    bound: int
    column: str = ""
    strata: Mapping[str | None, int] = field(default_factory=dict)
    group: str = ""

    def condition(self) -> str:
        """Return the condition in SQL on the rows of the main table, "" when all are in the tier."""
        if not self.strata:
            bucket = sql.bucket_sql(self.group, 1) if self.group else sql.quoted_name(BUCKET_COLUMN)
            return f"{bucket} < {self.bound}" if self.bound < BUCKETS else ""
        value = sql.key_text_sql(self.column)
        cases = "".join(
            f" WHEN {value} {'IS NULL' if stratum is None else f'= {sql.text_literal(stratum)}'} THEN {bound}"
            for stratum, bound in self.strata.items()
        )
        return f"{sql.quoted_name(BUCKET_COLUMN)} < CASE{cases} ELSE 0 END"


def tier_bucket_bound(rates: TierSpec, tier: str) -> int:
    """Return the bucket below which the tier's entities are: 100 for a rate of 0.01.

    Raises:
        Refusal: no such tier, a rate that is not above 0 and at most 1, or tiers that are not nested.
    """
    if tier not in TIERS:
        raise Refusal("there is no such tier", value=tier, remedy=f"Choose one of {', '.join(TIERS)}.")
    bounds = {name: _bucket_bound(getattr(rates, name), where=f"tiers.{name}") for name in TIERS}
    if sorted(bounds.values()) != list(bounds.values()):
        raise Refusal("each tier has to hold the one before it", where="tiers", value=bounds)
    return bounds[tier]


def holdout_bucket_bound(share: float) -> int:
    """Return the holdout bucket below which the holdout's entities are: 2,000 for a share of 0.2.

    Raises:
        Refusal: `share` is not above 0 and below 1.
    """
    bound = _bucket_bound(share, where="holdout")
    if bound >= BUCKETS:
        raise Refusal("the holdout cannot be everything", where="holdout", value=share)
    return bound


@dataclass(frozen=True)
class CutOffs:
    """From when on rows are in the holdout, and those before it in the validation rows; None: not by time."""

    holdout: datetime | None = None
    validation: datetime | None = None


def cut_off_sql(column: str, share: float, within: str = "") -> str:
    """Return the SELECT of one row, `cut_off`: the latest time from which on at least `share` of the rows are.

    Rows of equal times are on one side of it. The share is rounded up to a whole 10,000th.
    """
    where = f" WHERE {within}" if within else ""
    times = f"SELECT {_instant_sql(column)} AS happened, count(*) AS found FROM main{where} GROUP BY 1"  # noqa: S608
    sums = "sum(found) OVER (ORDER BY happened DESC) AS newer, sum(found) OVER () AS total"
    enough = f"newer * {BUCKETS} >= total * {_bucket_bound(share, where='holdout')}"
    return (
        f"SELECT max(happened) AS cut_off FROM (SELECT happened, {sums} FROM ({times}) AS times) AS sums WHERE {enough}"  # noqa: S608
    )


def newest_sql(column: str) -> str:
    """Return the SELECT of one row, `newest`: the latest time of the table `rows`."""
    return f"SELECT max({_instant_sql(column)}) AS newest FROM rows"  # noqa: S608


def split_conditions(
    rule: HoldoutRule, entity: str, cut_offs: CutOffs, validation: float | None, until: datetime | None = None
) -> dict[str, str]:
    """Return the condition in SQL for the rows of each part: `holdout`, `train`, and where it may have rows, others.

    `validation` is the share of the training rows that validate; they are divided by the same kind of rule, with the
    same gap. By time some rows are in no part; they are `unused`. Rows of `until` and later are not in the holdout.
    """
    holdout, rest = _sides(rule, entity, cut_offs.holdout, rule.share, first_digit=9)
    if until:
        holdout += f" AND {_instant_sql(rule.time)} < {sql.timestamp_literal(until)}"
    parts = {"holdout": holdout, "train": rest}
    if validation:
        inside, outside = _sides(rule, entity, cut_offs.validation, validation, first_digit=17)
        parts |= {"validation": f"{rest} AND {inside}", "train": f"{rest} AND {outside}"}
    if rule.time:
        parts["unused"] = f"NOT ({' OR '.join(f'({condition})' for condition in parts.values())})"
    return parts


def training_condition(rule: HoldoutRule, entity: str, cut_offs: CutOffs) -> str:
    """Return the condition in SQL for the rows that may train or validate."""
    return _sides(rule, entity, cut_offs.holdout, rule.share, first_digit=9)[1]


def _sides(
    rule: HoldoutRule, entity: str, cut_off: datetime | None, share: float | None, *, first_digit: int
) -> tuple[str, str]:
    """Return the conditions of the rows that a share and a cut-off take, and of those that they leave."""
    inside, outside = [], []
    if rule.by != "time":
        bucket = sql.bucket_sql(rule.group or entity, first_digit)
        bound = holdout_bucket_bound(share or 0.0)
        inside.append(f"{bucket} < {bound}")
        outside.append(f"{bucket} >= {bound}")
    if rule.time and cut_off:
        at = _instant_sql(rule.time)
        inside.append(f"{at} >= {sql.timestamp_literal(cut_off)}")
        outside.append(f"{at} < {sql.timestamp_literal(before_gap(cut_off, rule.gap))}")
    return " AND ".join(inside), " AND ".join(outside)


def before_gap(cut_off: datetime, gap: timedelta) -> datetime:
    """Return the time before which rows train: the gap before the cut-off."""
    first = datetime.min.replace(tzinfo=UTC)
    return cut_off - gap if cut_off - first > gap else first


def _instant_sql(column: str) -> str:
    return f"CAST({sql.quoted_name(column)} AS TIMESTAMPTZ)"


def refuse_empty_split(counts: Mapping[str, int], where: str) -> None:
    """Refuse a tier with an empty part, of `train`, `holdout` and `validation` where there is one."""
    used = {part: count for part, count in counts.items() if part != "unused"}
    if not all(used.values()):
        rows = sum(counts.values())
        validating = f", {used['validation']} for validation" if "validation" in used else ""
        raise Refusal(
            f"of {rows} rows, {used['train']} are for training{validating} and {used['holdout']} for the holdout",
            where=where,
            value=rows,
            remedy="Neither may be empty: ingest more rows, or change the tier's rate or the holdout in model.yaml. "
            "By time, rows must lie on both sides of the cut-off, outside its gap.",
        )


def stratum_counts_sql(column: str) -> str:
    """Return the SELECT that counts the entities: stratum (text), bucket, entities; one row an entity is assumed."""
    columns = f"{sql.key_text_sql(column)} AS stratum, {sql.quoted_name(BUCKET_COLUMN)} AS bucket"
    return f"SELECT {columns}, count(*) AS entities FROM main GROUP BY 1, 2 ORDER BY 1, 2"  # noqa: S608


def count_strata_sql(column: str) -> str:
    """Return the SELECT of one row, `strata`: how many values the column has, null not counted."""
    return f"SELECT count(DISTINCT {sql.key_text_sql(column)}) AS strata FROM main"  # noqa: S608


def refuse_too_many_strata(column: str, strata: int) -> None:
    """Refuse a column with too many values to stratify by."""
    if strata > MAX_STRATA:
        remedy = f"Choose a column of at most {MAX_STRATA} values, or take it out."
        raise Refusal(f"{column!r} has {strata} values", where="tiers.stratify_by", remedy=remedy)


def stratum_bucket_bounds(counts: Iterable[tuple[str | None, int, int]], rate: float) -> dict[str | None, int]:
    """Return for each stratum the smallest bound below which at least `rate` of its entities lie.

    `counts` are (stratum, bucket, entities), in any order. The rate is above 0 and at most 1.
    """
    _bucket_bound(rate, where="tiers")
    parted: dict[str | None, list[tuple[int, int]]] = {}
    for stratum, bucket, entities in counts:
        parted.setdefault(stratum, []).append((bucket, entities))
    return {stratum: _smallest_bound(sorted(found), rate) for stratum, found in parted.items()}


def _smallest_bound(counts: list[tuple[int, int]], rate: float) -> int:
    missing = math.ceil(Decimal(str(rate)) * sum(entities for _, entities in counts))
    for bucket, entities in counts:
        missing -= entities
        if missing <= 0:
            return bucket + 1
    return BUCKETS


def _bucket_bound(rate: float, *, where: str) -> int:
    if isinstance(rate, bool) or not math.isfinite(rate) or not 0 < rate <= 1:
        raise Refusal("a share has to be above 0 and at most 1", where=where, value=rate)
    # As it is written: 0.07 times 10,000 is 700.0000000000001 in binary.
    return math.ceil(Decimal(str(rate)) * BUCKETS)
