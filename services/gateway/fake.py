"""A stand-in for Prefect that starts nothing: it keeps the orders, and fails as often as it is told to."""

from dataclasses import dataclass, field
from uuid import NAMESPACE_URL, uuid5

from blocks.common.errors import Rejected, Unavailable
from services.gateway.run_starter import FlowRunSpec


@dataclass
class FakeRunStarter:
    """Gives each key one run. So many calls fail first (`unavailable_calls`); deployments in `refused_deployments` are refused."""

    unavailable_calls: int = 0
    refused_deployments: tuple[str, ...] = ()
    specs: dict[str, FlowRunSpec] = field(default_factory=dict)
    calls: int = 0

    def start(self, order: FlowRunSpec) -> str:
        """Return the id of the run of that key, started now or before."""
        self.calls += 1
        if self.unavailable_calls:
            self.unavailable_calls -= 1
            raise Unavailable("this fake is away for so many calls")
        if order.deployment in self.refused_deployments:
            raise Rejected(f"this fake refuses {order.deployment}")
        self.specs.setdefault(order.idempotency_key, order)
        return str(uuid5(NAMESPACE_URL, order.idempotency_key))
