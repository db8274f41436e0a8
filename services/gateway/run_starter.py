"""Start flow runs over the Prefect API. The idempotency key makes retries safe."""

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
"""The Retry-After to use when a busy server sends none."""


@dataclass(frozen=True)
class FlowRunSpec:
    """A flow run to start.

    Two specs with the same `idempotency_key` start one run; `environment_variables` are set in the run's process.
    """

    idempotency_key: str
    deployment: str
    parameters: Mapping[str, ParameterValue]
    environment_variables: Mapping[str, str]
    tags: tuple[str, ...]


class RunStarter(Protocol):
    """Starts flow runs."""

    def start(self, spec: FlowRunSpec) -> str:
        """Return the id of the run with that key, started now or earlier.

        Raises:
            Unavailable: Prefect is unavailable, or does not have the deployment (yet); the call may be repeated.
            Rejected: Prefect refuses the run, for example because a parameter has the wrong type.
        """


class PrefectConnection:
    """A connection to the Prefect API that stays open, because opening one costs more than starting a run."""

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
        """Close the connection, also when it is broken."""
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):
                client.__exit__(None, None, None)


def set_short_retry_after(response: httpx.Response) -> None:
    """Set a short Retry-After on 503 responses. A Prefect server on SQLite responds 503 when two writes collide.

    Prefect's client retries up to five times and waits 2, 4, 8, ... s unless the response has a Retry-After.
    """
    if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        response.headers.setdefault("Retry-After", RETRY_AFTER_SECONDS)


class PrefectRunStarter:
    """Starts deployed flows over the Prefect API that this process is configured for, with one open connection."""

    def __init__(self) -> None:
        self._connection = PrefectConnection()
        self._ids: dict[str, tuple[UUID, float]] = {}

    def start(self, spec: FlowRunSpec) -> str:
        """Return the id of the run with that key, started now or earlier. Raises Unavailable or Rejected."""
        from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

        options: dict[str, Any] = {"idempotency_key": spec.idempotency_key, "tags": list(spec.tags)}
        if spec.environment_variables:
            options["job_variables"] = {"env": dict(spec.environment_variables)}
        try:
            client = self._connection.open()
            deployment = self._deployment(client, spec.deployment)
            run = client.create_flow_run_from_deployment(deployment, parameters=dict(spec.parameters), **options)
            return str(run.id)
        except ObjectNotFound as cause:
            self._ids.pop(spec.deployment, None)
            raise Unavailable(f"Prefect has no deployment {spec.deployment!r}; deploy it: make deploy") from cause
        except PrefectHTTPStatusError as cause:
            if cause.response.status_code >= 500 or cause.response.status_code in {401, 403, 429}:
                raise Unavailable(f"Prefect responds with status {cause.response.status_code}") from cause
            detail = cause.response.text[:500]
            raise Rejected(f"Prefect refuses {spec.deployment} ({cause.response.status_code}): {detail}") from cause
        except (httpx.HTTPError, RuntimeError) as cause:  # the client wraps some connection failures in a RuntimeError
            self._connection.close()
            raise Unavailable(f"Prefect does not respond: {type(cause).__name__}") from cause

    def _deployment(self, client: "SyncPrefectClient", name: str) -> UUID:
        deployment_id, read_at = self._ids.get(name, (None, 0.0))
        if deployment_id is None or time.monotonic() - read_at > 30.0:
            deployment_id = client.read_deployment_by_name(name).id
            self._ids[name] = deployment_id, time.monotonic()
        return deployment_id
