"""Records of alerts: what happened to a model, and where alerts go."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


@dataclass(frozen=True)
class AlertRecord:
    """Something happened to a model.

    `cause` groups what belongs together ("churn/local/model.drift.detected"). `links` are label and address,
    or a command. `acknowledged_by` is who acknowledged it, or ""; `order_id` is that person's order, "" without one.
    """

    key: str
    cause: str
    event: str
    state: Literal["news", "raised", "recovered", "acknowledged"]
    model: str
    environment: str
    severity: Literal["info", "warning", "critical"]
    owner: str
    summary: str
    at: datetime
    links: Mapping[str, str] = field(default_factory=dict)
    acknowledged_by: str = ""
    order_id: str = ""


class AlertChannel(BaseModel):
    """An alert channel: a notification block, and which alerts it receives.

    By default it receives warnings and critical alerts of every model.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, description="The channel's name; messages bear it.")
    block: str = Field(pattern=r"^[a-z0-9-]+/.+$", description="A notification block: slack-webhook/team.")
    min_severity: Literal["info", "warning", "critical"] = Field(
        default="warning", description="The least severity to be told of."
    )
    models: tuple[str, ...] = Field(default=("*",), description="Patterns of models.")
    events: tuple[str, ...] = Field(default=("*",), description="Patterns of events, such as release.*.")


class AlertRouting(BaseModel):
    """Alert routing: the channels, and how often an open alert is repeated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    remind_hours: float = Field(default=24.0, ge=0, description="Hours between reminders of an open alert; 0: none.")
    channels: tuple[AlertChannel, ...] = Field(
        default=(), description="The channels; without any, `make alerts` lists the alerts."
    )
