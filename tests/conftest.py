"""Shared fixtures: the local stack, started once from a copy of the checkout with additional models."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from local.stack import Stack, use_running_stack
from local.supervisor import down
from tests.checkout import ROOT, copy_checkout, start_stack
from tests.fixtures.canary_secrets import IN_ENVIRONMENT as CANARIES_IN_ENVIRONMENT

if TYPE_CHECKING:
    from local.sagemaker.server import LocalSageMaker
    from tests.fixtures.local_aws import SageMakerLab

# A busy machine fails no property. Where the variable CI is set, Hypothesis draws the same examples each time.
settings.register_profile("unhurried", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

if not hasattr(sys.modules["__main__"], "__file__"):
    # In a process of pytest-xdist, an installed pyspark takes this for a doctest and ends the process.
    sys.modules["__main__"].__file__ = __file__

COPIES = (
    "alpha",
    "beta",
    "delta",
    "epsilon",
    "sampled",
    "checked",
    "trained",
    "judged",
    "asked",
    "deployed",
    "trials",
    "alerted",
    "pushed",
    "cloud",
    "renewed",
    "paired",
    "hushed",
    "signed",
    "halted",
    "anchored",
)
"""Models like churn under other names, so that no test depends on what another one left."""

CHANGED = {"renewed": {"automatic: false": "automatic: true", "cool_down_hours: 24.0": "cool_down_hours: 0.0"}}
"""Differences of some copies' `model.yaml` from that of churn."""


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests of the local SageMaker as slow, and distribute the tests over processes.

    Tests that need the stack run first, in one process; the others are distributed by file. So one stack is
    started, and a module's servers once; `--dist loadgroup` uses these marks.
    """
    for item in items:
        if "local_sagemaker" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)  # a server with its own processes, for which its tests wait
    items.sort(key=lambda item: item.get_closest_marker("stack") is None)
    for item in items:
        group = "stack" if item.get_closest_marker("stack") else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def team_checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of this checkout, committed, to which only folders below `models/` were added."""
    copy = tmp_path_factory.mktemp("checkout")
    more = [ROOT / "tests" / "data" / name for name in ("diamonds", "flights")]
    return copy_checkout(copy, like_churn=COPIES, more=more, changed=CHANGED)


@pytest.fixture(scope="session")
def stack(team_checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Start the stack from the copy, point this process at it, and stop it at the end."""
    state = tmp_path_factory.mktemp("state")
    before = dict(os.environ)
    os.environ |= {"AWS_ACCESS_KEY_ID": "testing", **CANARIES_IN_ENVIRONMENT}  # also of the local SageMaker
    try:
        start_stack(team_checkout, state)
        yield use_running_stack(state)
    finally:
        down(state)
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="session")
def local_sagemaker(tmp_path_factory: pytest.TempPathFactory) -> Iterator["LocalSageMaker"]:
    """Run one local SageMaker for all tests of this process; each test uses its own bucket and names."""
    from tests.fixtures.local_aws import local_aws  # prefect and boto3: 2 s that most tests need not wait for

    with local_aws(tmp_path_factory.mktemp("local-sagemaker")) as started:
        yield started


@pytest.fixture
def desk(local_sagemaker: "LocalSageMaker") -> Iterator["SageMakerLab"]:
    """Return boto3 clients for the local SageMaker; the faults that a test sets end with the test."""
    from tests.fixtures.local_aws import SageMakerLab

    yield SageMakerLab(local_sagemaker)
    local_sagemaker.faults.clear()
