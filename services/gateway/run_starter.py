"""What turns an order into a flow run: the Prefect API, under an idempotency key that a retry finds again."""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

import httpx

from blocks.common.errors import Rejected, Unavailable
from services.gateway.rules.matching import ParameterValue

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient


RETRY_AFTER_SECONDS = "0.1"
"""How long to leave a server alone that is busy and does not say for how long."""


@dataclass(frozen=True)
class FlowRunSpec:
    """A flow run to start. `idempotency_key` makes of two orders one run; `environment_variables` go into the environment of its process."""

    idempotency_key: str
    deployment: str
    parameters: Mapping[str, ParameterValue]
    environment_variables: Mapping[str, str]
    tags: tuple[str, ...]


class RunStarter(Protocol):
    """Starts runs."""

    def start(self, order: FlowRunSpec) -> str:
        """Return the id of the run of that key, started now or before.

        Raises:
            Unavailable: Prefect is away, or does not know the deployment (yet); the call may be repeated.
            Rejected: Prefect refuses the order, as for a parameter of the wrong kind.
        """


class PrefectConnection:
    """A connection to the Prefect API that is kept open: opening one costs more than starting a run."""

    def __init__(self) -> None:
        self._client: SyncPrefectClient | None = None

    def open(self) -> "SyncPrefectClient":
        """Return the open connection."""
        from prefect.client.orchestration import get_client

        if self._client is None:
            client = get_client(sync_client=True, httpx_settings={"event_hooks": {"response": [set_short_retry_after]}})
            client.__enter__()
            self._client = client
        return self._client

    def close(self) -> None:
        """Close it, broken as it may be."""
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):
                client.__exit__(None, None, None)


def set_short_retry_after(response: httpx.Response) -> None:
    """Have a call that was answered 503 made again soon: a server on SQLite says so when two of its writes meet.

    Prefect's client, which makes it again up to five times, waits 2, 4, 8, ... s unless the server says how long.
    """
    if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        response.headers.setdefault("Retry-After", RETRY_AFTER_SECONDS)


class PrefectRunStarter:
    """Starts deployed flows over the Prefect API of this process's settings, by one connection that is kept open."""

    def __init__(self) -> None:
        self._connection = PrefectConnection()
        self._ids: dict[str, tuple[UUID, float]] = {}

    def start(self, order: FlowRunSpec) -> str:
        """Return the id of the run of that key, started now or before. Raises Unavailable or Rejected."""
        from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

        options: dict[str, Any] = {"idempotency_key": order.idempotency_key, "tags": list(order.tags)}
        if order.environment_variables:
            options["job_variables"] = {"env": dict(order.environment_variables)}
        try:
            client = self._connection.open()
            deployment = self._deployment(client, order.deployment)
            run = client.create_flow_run_from_deployment(deployment, parameters=dict(order.parameters), **options)
            return str(run.id)
        except ObjectNotFound as cause:
            self._ids.pop(order.deployment, None)
            raise Unavailable(f"Prefect has no deployment {order.deployment!r}; deploy it: make deploy") from cause
        except PrefectHTTPStatusError as cause:
            if cause.response.status_code >= 500 or cause.response.status_code in {401, 403, 429}:
                raise Unavailable(f"Prefect answers {cause.response.status_code}") from cause
            said = cause.response.text[:500]
            raise Rejected(f"Prefect refuses {order.deployment} ({cause.response.status_code}): {said}") from cause
        except (httpx.HTTPError, RuntimeError) as cause:  # its client wraps some failures to connect in a RuntimeError
            self._connection.close()
            raise Unavailable(f"Prefect does not answer: {type(cause).__name__}") from cause

    def _deployment(self, client: "SyncPrefectClient", name: str) -> UUID:
        found, read_at = self._ids.get(name, (None, 0.0))
        if found is None or time.monotonic() - read_at > 30.0:
            found = client.read_deployment_by_name(name).id
            self._ids[name] = found, time.monotonic()
        return found
