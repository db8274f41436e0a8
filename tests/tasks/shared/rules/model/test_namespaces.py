"""Namespaces: part of a model's name; two branches never share one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.shared.rules.model.namespaces import (
    MAX_NAMESPACE_LENGTH,
    MAX_NAMESPACED_NAME_LENGTH,
    base_name,
    check_name,
    in_namespace,
    namespace_part,
    to_namespace,
)
from tasks.shared.rules.refusal import Refusal

BRANCHES = st.text(min_size=1, max_size=80) | st.from_regex(r"[A-Za-z]{1,8}[/_.-][a-z0-9/_.-]{0,60}", fullmatch=True)


@pytest.mark.parametrize(
    ("name", "base", "namespace"),
    [("churn", "churn", ""), ("churn--dana", "churn", "dana"), ("my-model_2--fix-12", "my-model_2", "fix-12")],
)
def test_a_name_says_which_folder_and_which_namespace(name: str, base: str, namespace: str) -> None:
    assert (base_name(name), namespace_part(name)) == (base, namespace)
    assert check_name(name) == in_namespace(base, namespace) == in_namespace(name, namespace) == name


@pytest.mark.parametrize(
    "name",
    ["churn--", "churn--Dana", "churn--1", "churn--a_b", "churn--a--b", "churn---a", "churn--a-", "churn--ä",
     "churn--a/b", "churn--a\n", "churn--" + "a" * (MAX_NAMESPACE_LENGTH + 1)],
)  # fmt: skip
def test_what_is_no_namespace_is_refused_with_one_that_is(name: str) -> None:
    with pytest.raises(Refusal, match=r"(?s)not a valid namespace.*churn--dana"):
        check_name(name)


def test_a_name_that_would_not_fit_everywhere_is_refused_with_the_room_there_is() -> None:
    long = "m" * 40
    assert check_name(f"{long}--{'a' * 9}")
    with pytest.raises(Refusal, match="at most 9 letters"):
        check_name(f"{long}--{'a' * 10}")
    with pytest.raises(Refusal, match="shorter name"):
        check_name(f"{'m' * 50}--a")


@pytest.mark.parametrize(
    ("branch", "namespace"),
    [("dana", "dana"), ("fix-12", "fix-12"), ("feature/price list", "feature-price-l-"), ("Dana", "dana-"),
     ("12/x", "b-12-x-"), ("ветка", "b-"), ("", "b-"), ("a" * 25, "a" * 15 + "-")],
)  # fmt: skip
def test_a_branch_keeps_what_can_be_read_of_it(branch: str, namespace: str) -> None:
    found = to_namespace(branch)
    assert found == namespace or (found.startswith(namespace) and len(found) == len(namespace) + 8)


@given(branch=BRANCHES, other=BRANCHES)
def test_every_branch_has_a_valid_namespace_of_its_own(branch: str, other: str) -> None:
    for each in (branch, other):
        assert namespace_part(in_namespace("churn", to_namespace(each, "churn"))) == to_namespace(each)
    assert (to_namespace(branch) == to_namespace(other)) == (branch == other)


@given(branch=BRANCHES)
def test_what_looks_like_the_namespace_of_another_branch_is_not_its(branch: str) -> None:
    made = to_namespace(branch)
    assert made == branch or to_namespace(made) != made


@given(branch=BRANCHES, length=st.integers(1, MAX_NAMESPACED_NAME_LENGTH - 12))
def test_the_namespace_of_a_branch_fits_the_model(branch: str, length: int) -> None:
    name = "m" * length
    assert len(in_namespace(name, to_namespace(branch, name))) <= MAX_NAMESPACED_NAME_LENGTH
