"""Record of one attempt to change the deployed version."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal


@dataclass(frozen=True)
class Deployment:
    """One attempt to change the deployed version: `action` is what was tried, `status` how it ended.

    `order_id` is the order of the person who rolled back; "" without one.
    """

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
    order_id: str = ""
