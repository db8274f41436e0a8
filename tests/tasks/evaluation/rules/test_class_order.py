"""The order of a model's probabilities: the declared one, by the model's own `classes_`, or a refusal with the remedy."""

import pytest

from tasks.evaluation.rules.predictions import check_class_order
from tasks.shared.rules.refusal import Refusal

ACCEPTED = {
    "the declared order": (("No", "Yes"), ("No", "Yes")),
    "another than the alphabet's": (("Yes", "No"), ("Yes", "No")),
    "positions": (("low", "high", "middle"), ("0", "1", "2")),
    "digits in order": (("0", "1"), ("0", "1")),
    "flags": (("False", "True"), ("False", "True")),
    "a model that does not tell": (("No", "Yes"), None),
    "a regression": ((), None),
    "a regression with classes": ((), ("0", "1")),
}


@pytest.mark.parametrize(("declared", "known"), ACCEPTED.values(), ids=ACCEPTED)
def test_an_order_that_is_the_declared_one_is_accepted(declared: tuple[str, ...], known: tuple[str, ...]) -> None:
    check_class_order(declared, known)


PERMUTED = {
    "reversed": (("Yes", "No"), ("No", "Yes")),
    "digits": (("1", "0"), ("0", "1")),
    "three classes": (("low", "middle", "high"), ("high", "low", "middle")),
}


@pytest.mark.parametrize(("declared", "known"), PERMUTED.values(), ids=PERMUTED)
def test_another_order_is_refused_with_both_orders(declared: tuple[str, ...], known: tuple[str, ...]) -> None:
    with pytest.raises(Refusal, match="in another order") as refused:
        check_class_order(declared, known)
    assert f"Declare data.classes: [{', '.join(known)}]" in str(refused.value)
    assert f"in the order {', '.join(declared)}" in str(refused.value)


OTHERS = {
    "a class that no training row had": (("a", "b", "c"), ("a", "c"), "no training row had b"),
    "other words": (("No", "Yes"), ("no", "yes"), "Train it on the classes of model.yaml, No, Yes"),
    "one more": (("a", "b"), ("a", "b", "c"), "Train it on the classes"),
    "positions of more classes": (("a", "b"), ("0", "1", "2"), "Train it on the classes"),
}


@pytest.mark.parametrize(("declared", "known", "said"), OTHERS.values(), ids=OTHERS)
def test_other_classes_are_refused(declared: tuple[str, ...], known: tuple[str, ...], said: str) -> None:
    with pytest.raises(Refusal, match="knows other classes.*" + said):
        check_class_order(declared, known)
