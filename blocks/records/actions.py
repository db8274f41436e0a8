"""Records of actions: an order, which is a person's signed permission for one act, and who may do what."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Action = Literal["rollback", "acknowledge", "waive", "clean_up", "erase", "start"]
"""What people do beside deciding: roll back, acknowledge alerts, waive gates, clean up, erase, start runs."""


@dataclass(frozen=True)
class ActionOrder:
    """An order to do one action once, before `expires`. Its id is the hash of its chain entry.

    `target` says what it is about: the name of a flow or of an alert. `parameters` are the name and the digest of
    each parameter, so that the order fits no other run and the chain keeps no password of a source. `authenticated`
    says whether the channel proved the person's identity, and `roles` are the roles that it proved.
    """

    action: Action
    environment: str
    model: str
    target: str
    parameters: tuple[tuple[str, str], ...]
    by: str
    reason: str
    channel: str
    at: datetime
    expires: datetime
    authenticated: bool = False
    roles: tuple[str, ...] = ()


class ActionPolicy(BaseModel):
    """Who may do an action. Empty lists admit everyone who is authenticated, or may be marked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    roles: tuple[str, ...] = Field(default=(), description="The person needs one of these roles.")
    people: tuple[str, ...] = Field(default=(), description="Only these people; empty: anyone.")
    excluded: tuple[str, ...] = Field(default=(), description="These people may not, whatever their roles.")
    unauthenticated: Literal["refuse", "mark"] | None = Field(
        default=None,
        description="When nobody proved who they are: refuse, or do it and mark the name. "
        "Left out: refuse where approval.require_authentication is true, else mark.",
    )


class RollbackPolicy(ActionPolicy):
    """Who may roll back, and to which versions."""

    to: Literal["previous", "approved", "any"] | None = Field(
        default=None,
        description="previous: the version before; approved: a version whose approval is verified; any: a version that "
        "was deployed. Left out: approved where approval.require_authentication is true, else any.",
    )


class RunPolicy(ActionPolicy):
    """Who may start runs, and whether runs start without a person."""

    automatic: bool = Field(default=True, description="Whether schedules and auto-retrain start runs.")


class ActionSettings(BaseModel):
    """The policy of each action, and how long an order is valid."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rollback: RollbackPolicy = Field(default=RollbackPolicy(), description="Roll back a model.")
    acknowledge: ActionPolicy = Field(default=ActionPolicy(), description="Acknowledge an alert.")
    waive: ActionPolicy = Field(default=ActionPolicy(), description="Waive failed gates.")
    clean_up: RunPolicy = Field(default=RunPolicy(), description="Collect garbage, and maintain the lake.")
    erase: ActionPolicy = Field(default=ActionPolicy(), description="Erase the rows of an entity.")
    start: RunPolicy = Field(default=RunPolicy(), description="Start any other run: retrain, ingest, experiment, …")
    order_minutes: int = Field(default=1440, ge=1, le=10_080, description="Minutes in which an order must be used.")

    def policy(self, action: Action) -> ActionPolicy:
        """Return the policy of an action."""
        policy: ActionPolicy = getattr(self, action)
        return policy
