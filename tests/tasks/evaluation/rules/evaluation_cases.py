"""Pairs of correlated models of one truth, seeded, and real ones, for the tests of evaluation."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
import pytest

from tasks.evaluation.rules.comparison import compare
from tasks.evaluation.rules.evaluation import evaluate
from tasks.evaluation.rules.metrics import METRICS
from tasks.shared.rules.model.parts import Comparison as Terms
from tasks.shared.rules.model.spec import EvaluationSpec, Floor, SliceFloor

BINARY, THREE = ("no", "yes"), ("ant", "bee", "cow")
PAIRS = [(task, metric) for task, metrics in METRICS.items() for metric in metrics]
every_metric = pytest.mark.parametrize(("task", "metric"), PAIRS, ids=map("-".join, PAIRS))


def both(positive):
    """Return the two columns of a binary prediction from the probability of the positive class."""
    positive = np.asarray(positive, dtype=float)
    return np.column_stack([1 - positive, positive])


def models(task, rows=400, seed=0, noise=(0.6, 0.6), ties=False):
    """Return classes, truth, champion and challenger: two correlated models of one truth, each with its noise."""
    rng = np.random.default_rng(seed)
    if task == "regression":
        signal = rng.normal(0, 3, rows)
        return (), signal + rng.normal(0, 1, rows), *(signal + each * rng.normal(size=rows) for each in noise)
    classes = BINARY if task == "binary" else THREE
    signal = 1.5 * rng.normal(size=(rows, len(classes)))
    truth = (signal + rng.gumbel(size=signal.shape)).argmax(axis=1)
    shared = signal + 0.5 * rng.normal(size=signal.shape)
    weights = [np.exp(shared + each * rng.normal(size=signal.shape)) for each in noise]
    found = [each / each.sum(axis=1, keepdims=True) for each in weights]
    found = [both(each[:, 1].round(1)) for each in found] if ties else found
    return classes, np.array(classes)[truth], *found


def compared(task, metric, drawn, **terms):
    """Compare the two models that `models` returned on the usual terms."""
    classes, truth, champion, challenger = drawn
    usual = {"confidence": 0.95, "margin": 0.0, "rule": "superior"}
    return compare(task, classes, metric, truth, champion=champion, challenger=challenger, **usual | terms)


@dataclass(frozen=True)
class Trained:
    """A real data set, split in two, and what a weak and a strong model predict of its second half."""

    task: str
    classes: tuple[str, ...]
    truth: np.ndarray
    columns: pd.DataFrame
    weak: np.ndarray
    strong: np.ndarray
    spec: EvaluationSpec

    def evaluated(self, challenger=None, champion=None, **changes):
        """Evaluate the strong model, against a champion when one is given."""
        usual = {"task": self.task, "classes": self.classes, "spec": self.spec, "truth": self.truth}
        usual |= {"slice_columns": self.columns, "leaked": 0, "seed": 7, "champion": champion}
        usual |= {"challenger": self.strong if challenger is None else challenger}
        return evaluate(**usual | {"champion_version": "" if champion is None else "4"} | changes)


@cache
def trained(task):
    """Fit a weak model (two features) and a strong one (all) on every other row of a data set of scikit-learn."""
    from sklearn import datasets
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    load, floor, limit = {
        "binary": (
            datasets.load_breast_cancer,
            {"metric": "auc", "at_least": 0.95},
            {"metric": "brier", "at_most": 0.1},
        ),
        "multiclass": (datasets.load_wine, {"metric": "auc", "at_least": 0.9}, {"metric": "log_loss", "at_most": 0.5}),
        "regression": (datasets.load_diabetes, {"metric": "r2", "at_least": 0.3}, {"metric": "rmse", "at_most": 65.0}),
    }[task]
    data = load()
    regression = task == "regression"
    classes = () if regression else tuple(map(str, data.target_names))
    truth = data.target if regression else np.array(classes)[data.target]
    predicted = []
    for features in (data.data[:, 1:3] if not regression else data.data[:, :2], data.data):
        model = make_pipeline(StandardScaler(), Ridge() if regression else LogisticRegression(max_iter=500))
        model.fit(features[::2], data.target[::2])
        predicted.append((model.predict if regression else model.predict_proba)(features[1::2]))
    half = pd.DataFrame({"size": np.where(data.data[:, 0] > np.median(data.data[:, 0]), "large", "small")})[1::2]
    terms = Terms(metric=limit["metric"], rule="superior", margin=0.005, confidence=0.95)
    slices = (SliceFloor(column="size", minimum_rows=20, **limit | {"at_most": limit["at_most"] * 1.3}),)
    floors = (Floor(**floor), Floor(**limit))
    spec = EvaluationSpec(minimum_rows=50, floors=floors, slices=slices, comparison=terms)
    return Trained(task, classes, truth[1::2], half, *predicted, spec)
