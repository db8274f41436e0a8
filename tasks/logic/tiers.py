"""Which rows a tier holds and which decide: by hash of the entity, hence stable when data is added."""

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.logic.buckets import BUCKETS, Keys, holdout_buckets
from tasks.logic.refusal import Refusal

TIERS = ("development", "staging", "production")
"""The tiers, smallest first; each holds the one before it."""


class Rates(Protocol):
    """The share of the entities in each tier, above 0 and at most 1."""

    @property
    def development(self) -> float:
        """Share of the smallest tier."""

    @property
    def staging(self) -> float:
        """Share of the middle tier."""

    @property
    def production(self) -> float:
        """Share of the largest tier."""


@dataclass(frozen=True)
class Split:
    """A table cut in two by entity: rows that may train, and rows that decide and never train."""

    train: pa.Table
    holdout: pa.Table


def tier_bound(rates: Rates, tier: str) -> int:
    """Return the bucket that the tier stays below: 100 for a rate of 0.01.

    Raises:
        Refusal: no such tier, a rate that is not above 0 and at most 1, or tiers that are not nested.
    """
    if tier not in TIERS:
        raise Refusal("there is no such tier", value=tier, remedy=f"Choose one of {', '.join(TIERS)}.")
    bounds = {name: _bound(getattr(rates, name), where=f"tiers.{name}") for name in TIERS}
    if sorted(bounds.values()) != list(bounds.values()):
        raise Refusal("each tier has to hold the one before it", where="tiers", value=bounds)
    return bounds[tier]


def is_holdout(keys: Keys, share: float) -> npt.NDArray[np.bool_]:
    """Return for each key whether its entity is of the holdout, shape (keys,).

    Raises:
        Refusal: `share` is not above 0 and below 1, or the keys cannot be hashed.
    """
    bound = _bound(share, where="holdout")
    if bound >= BUCKETS:
        raise Refusal("the holdout cannot be everything", where="holdout", value=share)
    return np.asarray(holdout_buckets(keys) < bound)


def split(table: pa.Table, entity: str, share: float) -> Split:
    """Cut the table by the holdout bucket of its `entity` column; all rows of an entity go to one side.

    Raises:
        Refusal: there is no such column, or one of the two sides is empty.
    """
    if table.column_names.count(entity) != 1:
        raise Refusal("the entity's column is not there", where="split", value=entity)
    decides = is_holdout(table.column(entity), share)
    parts = Split(train=table.filter(pa.array(~decides)), holdout=table.filter(pa.array(decides)))
    if parts.train.num_rows == 0 or parts.holdout.num_rows == 0:
        raise Refusal(
            f"of {table.num_rows} rows, {parts.train.num_rows} may train and {parts.holdout.num_rows} decide",
            where="split",
            remedy="Neither may be empty: bring more data, or take a larger tier or another holdout share.",
        )
    return parts


def _bound(rate: float, *, where: str) -> int:
    if isinstance(rate, bool) or not math.isfinite(rate) or not 0 < rate <= 1:
        raise Refusal("a share has to be above 0 and at most 1", where=where, value=rate)
    # As it is written: 0.07 times 10,000 is 700.0000000000001 in binary.
    return math.ceil(Decimal(str(rate)) * BUCKETS)
