"""What the prediction process tells about a model: its classes, and text where numbers are expected."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from runtime.predict import LabelsReturned, as_numbers, class_labels

ROWS = np.arange(12.0).reshape(6, 2)


def wrapped(model: Any) -> Any:
    """Return what MLflow returns for a model, as far as the process uses it."""
    return SimpleNamespace(get_raw_model=lambda: model)


LABELS = {
    "text": (["Yes", "No", "Yes", "No", "No", "Yes"], ["No", "Yes"]),
    "integers": ([1, 0, 1, 0, 2, 2], ["0", "1", "2"]),
    "whole floats": ([1.0, 0.0, 1.0, 0.0, 0.0, 1.0], ["0", "1"]),
    "flags": ([True, False, True, False, True, False], ["False", "True"]),
}


@pytest.mark.parametrize(("target", "known"), LABELS.values(), ids=LABELS)
def test_the_classes_of_a_model_are_text_in_the_order_of_its_probabilities(target: Any, known: list[str]) -> None:
    assert class_labels(wrapped(LogisticRegression().fit(ROWS, target))) == known
    assert class_labels(wrapped(make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS, target))) == known


WITHOUT = {
    "a regression": LinearRegression().fit(ROWS, np.arange(6)),
    "a pipeline that ends in a regression": make_pipeline(StandardScaler(), LinearRegression()).fit(ROWS, np.arange(6)),
    "several outputs": SimpleNamespace(classes_=[np.array([0, 1]), np.array([0, 1])]),
    "classes that are no list": SimpleNamespace(classes_=7),
}


@pytest.mark.parametrize("model", WITHOUT.values(), ids=WITHOUT)
def test_a_model_without_classes_tells_none(model: Any) -> None:
    assert class_labels(wrapped(model)) is None
    assert class_labels(object()) is None


@pytest.mark.parametrize("labels", [["No", "Yes"], np.array(["No", "Yes"], dtype=object)], ids=["text", "objects"])
def test_text_is_named_as_labels_with_the_remedy(labels: Any) -> None:
    with pytest.raises(LabelsReturned, match="the label 'No' instead of probabilities.*predict_proba"):
        as_numbers(np.asarray(labels))


def test_numbers_that_are_objects_stay_numbers() -> None:
    assert as_numbers(np.array([0.25, 1], dtype=object)).tolist() == [0.25, 1.0]
