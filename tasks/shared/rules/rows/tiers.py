"""The rows of a tier and of the holdout, by the hash of the entity, which is stable when data is added."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from tasks.shared.rules import sql
from tasks.shared.rules.model.data import TierSpec
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
    """

    bound: int
    column: str = ""
    strata: Mapping[str | None, int] = field(default_factory=dict)

    def condition(self) -> str:
        """Return the condition in SQL on the rows of the main table, "" when all are in the tier."""
        if not self.strata:
            return f"{sql.quoted_name(BUCKET_COLUMN)} < {self.bound}" if self.bound < BUCKETS else ""
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


def holdout_condition(entity: str, share: float) -> str:
    """Return the condition in SQL for the holdout rows. Raises Refusal as `holdout_bucket_bound`."""
    return f"{sql.bucket_sql(entity, 9)} < {holdout_bucket_bound(share)}"


def refuse_empty_split(training_rows: int, holdout_rows: int, where: str) -> None:
    """Refuse a tier whose training rows or holdout rows are empty."""
    if not training_rows or not holdout_rows:
        rows = training_rows + holdout_rows
        raise Refusal(
            f"of {rows} rows, {training_rows} are for training and {holdout_rows} for the holdout",
            where=where,
            value=rows,
            remedy="Neither may be empty: ingest more rows, or raise the tier's rate or the holdout in model.yaml.",
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
