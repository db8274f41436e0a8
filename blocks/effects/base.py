"""The effects port: outside effects, deployments and comparisons, each recorded once. Rows are only added.

The intent is recorded before the effect, and its outcome right after: a process that finds an intent without an outcome
reads the state of the external system before it does the effect again.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from blocks.common.errors import NotFound
from blocks.records.comparisons import Comparison
from blocks.records.deployments import Deployment


@dataclass(frozen=True)
class Effect:
    """An outside effect under its key: `intent` before it is done, `done` with its outcome after."""

    key: str
    state: Literal["intent", "done"]
    detail: str
    outcome: str
    at: datetime


class Effects(ABC):
    """Effects, deployments and comparisons. Each key is written once; a repeat returns the recorded one."""

    @abstractmethod
    def intend(self, key: str, detail: str, at: datetime) -> Effect:
        """Record an effect before it is done, or return the one with that key."""

    @abstractmethod
    def finish(self, key: str, outcome: str, at: datetime) -> Effect:
        """Record that the effect is done; the first outcome stays. Raises NotFound without an intent."""

    @abstractmethod
    def effect(self, key: str) -> Effect | None:
        """Return the effect under the key, or None."""

    @abstractmethod
    def unfinished(self, prefix: str) -> tuple[Effect, ...]:
        """Return the effects that were intended and not finished, of keys that begin with `prefix`, oldest first."""

    @abstractmethod
    def record_deployment(self, deployment: Deployment) -> Deployment:
        """Add a deployment, or return the one with its id."""

    @abstractmethod
    def deployments(self, model: str, environment: str) -> tuple[Deployment, ...]:
        """Return the deployments of a model in an environment, newest first."""

    @abstractmethod
    def model_names(self, environment: str) -> tuple[str, ...]:
        """Return the models with a deployment in an environment, failed ones included, sorted."""

    @abstractmethod
    def record_comparison(self, comparison: Comparison) -> Comparison:
        """Add a comparison, or return the one with its number: then another process was first with that number."""

    @abstractmethod
    def comparisons(self, model: str, environment: str) -> tuple[Comparison, ...]:
        """Return the comparisons of a model in an environment, in the order of their numbers."""


def unknown_effect_error(key: str) -> NotFound:
    """Return the error for finishing an effect that was never intended."""
    return NotFound(f"ledger: nothing was intended under the key {key!r}. Call intend before the effect.")
