"""Fake run starter for tests: it stores the requested runs and fails a configurable number of times."""

from dataclasses import dataclass, field
from uuid import NAMESPACE_URL, uuid5

from blocks.common.errors import Rejected, Unavailable
from services.gateway.run_starter import FlowRunSpec


@dataclass
class FakeRunStarter:
    """Returns one run id per key.

    The first `unavailable_calls` calls raise Unavailable; deployments in `refused_deployments` raise Rejected.
    """

    unavailable_calls: int = 0
    refused_deployments: tuple[str, ...] = ()
    specs: dict[str, FlowRunSpec] = field(default_factory=dict)
    calls: int = 0

    def start(self, spec: FlowRunSpec) -> str:
        """Return the id of the run with that key, started now or earlier."""
        self.calls += 1
        if self.unavailable_calls:
            self.unavailable_calls -= 1
            raise Unavailable("this fake is configured to be unavailable")
        if spec.deployment in self.refused_deployments:
            raise Rejected(f"this fake refuses {spec.deployment}")
        self.specs.setdefault(spec.idempotency_key, spec)
        return str(uuid5(NAMESPACE_URL, spec.idempotency_key))
