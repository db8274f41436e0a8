"""A stand-in for Prefect that starts nothing: it keeps the orders, and fails as often as it is told to."""

from dataclasses import dataclass, field
from uuid import NAMESPACE_URL, uuid5

from blocks.common.errors import Rejected, Unavailable
from services.gateway.starting import RunOrder


@dataclass
class FakeStarter:
    """Gives each key one run. So many calls fail first (`away`); deployments in `unknown` are refused."""

    away: int = 0
    unknown: tuple[str, ...] = ()
    orders: dict[str, RunOrder] = field(default_factory=dict)
    calls: int = 0

    def start(self, order: RunOrder) -> str:
        """Return the id of the run of that key, started now or before."""
        self.calls += 1
        if self.away:
            self.away -= 1
            raise Unavailable("this fake is away for so many calls")
        if order.deployment in self.unknown:
            raise Rejected(f"this fake refuses {order.deployment}")
        self.orders.setdefault(order.key, order)
        return str(uuid5(NAMESPACE_URL, order.key))
