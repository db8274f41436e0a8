"""The effects port: outside effects and deployments, each written down once. Rows are only added.

The intent is written before the effect, and its outcome right after: a process that finds an intent without an outcome
reads the real world before it does the effect again.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from blocks.common.errors import NotFound


@dataclass(frozen=True)
class Effect:
    """An outside effect under its key: `intent` before it is done, `done` with its outcome after."""

    key: str
    state: Literal["intent", "done"]
    detail: str
    outcome: str
    at: datetime


@dataclass(frozen=True)
class Deployment:
    """One attempt to change the deployed version: `action` is what was tried, `status` how it ended."""

    id: str
    model: str
    environment: str
    version: str
    digest: str
    action: Literal["deploy", "rollback"]
    status: Literal["serving", "failed"]
    by: str
    reason: str
    request_id: str
    at: datetime


class Effects(ABC):
    """Effects and deployments. Each key is written once; a repeat returns what is there."""

    @abstractmethod
    def intend(self, key: str, detail: str, at: datetime) -> Effect:
        """Write down an effect before it is done, or return the one that is there under the key."""

    @abstractmethod
    def finish(self, key: str, outcome: str, at: datetime) -> Effect:
        """Write down that the effect is done; the first outcome stays.

        Raises:
            NotFound: nothing was intended under that key.
        """

    @abstractmethod
    def effect(self, key: str) -> Effect | None:
        """Return the effect under the key, or None."""

    @abstractmethod
    def record_deployment(self, deployment: Deployment) -> Deployment:
        """Add a deployment, or return the one with that id."""

    @abstractmethod
    def deployments(self, model: str, environment: str) -> tuple[Deployment, ...]:
        """Return the deployments of a model in an environment, newest first."""

    @abstractmethod
    def models(self, environment: str) -> tuple[str, ...]:
        """Return the models with a deployment in an environment, failed ones included, sorted."""


def nothing_intended(key: str) -> NotFound:
    """Return the error of finishing an effect that was never intended."""
    return NotFound(f"ledger: nothing was intended under the key {key!r}. Call intend before the effect.")
