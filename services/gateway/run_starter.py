"""Start flow runs over the Prefect API, and read their state. The idempotency key makes retries safe."""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from blocks.common.errors import Rejected, Unavailable
from blocks.inbox.base import StartedRun
from deployments.flow_runs import outcome_of_run
from services.gateway.rules.matching import ParameterValue
from services.gateway.rules.report import RunReport

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


@dataclass(frozen=True)
class Code:
    """A commit, the URL that workers clone it from, and the name of a token to clone with ("" for none)."""

    commit: str
    repository: str
    credentials: str = ""

    def variables(self) -> dict[str, str]:
        """Return the variables that make a run use the code of the commit; see deployments/pull.py."""
        variables = {"RATCHET_COMMIT": self.commit, "RATCHET_REPOSITORY": self.repository}
        return {**variables, "RATCHET_CREDENTIALS": self.credentials} if self.credentials else variables


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

    def open(self) -> SyncPrefectClient:
        """Return the open connection."""
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

    def _deployment(self, client: SyncPrefectClient, name: str) -> UUID:
        deployment_id, read_at = self._ids.get(name, (None, 0.0))
        if deployment_id is None or time.monotonic() - read_at > 30.0:
            deployment_id = client.read_deployment_by_name(name).id
            self._ids[name] = deployment_id, time.monotonic()
        return deployment_id


def prefect_run_reader() -> Callable[[StartedRun], RunReport | None]:
    """Return a function that reads a run; None when Prefect no longer has it. It raises Unavailable."""
    connection = PrefectConnection()
    api_url = os.environ.get("PREFECT_API_URL", "").removesuffix("/").removesuffix("/api")
    ui_url = os.environ.get("PREFECT_UI_URL") or api_url

    def read_run(started: StartedRun) -> RunReport | None:
        run_id = UUID(started.run_id)
        try:
            client = connection.open()
            run = client.read_flow_run(run_id)
            of_this_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]))
            ended = run.state is not None and run.state.is_final()
            artifacts = client.read_artifacts(artifact_filter=of_this_run) if ended else []
        except ObjectNotFound:
            return None
        except (httpx.HTTPError, PrefectHTTPStatusError, RuntimeError) as cause:
            connection.close()
            raise Unavailable(f"Prefect does not respond: {type(cause).__name__}") from cause
        state = run.state
        return RunReport(
            run_id=str(run.id),
            url=f"{ui_url}/runs/flow-run/{run.id}",
            deployment=started.deployment,
            rule_name=started.rule,
            state_type=state.type.value if state else "PENDING",
            state_name=str(state.name) if state else "Pending",
            message=(state.message or "") if state else "",
            parameters=run.parameters,
            artifacts={str(each.key): str(each.data) for each in artifacts if each.type == "markdown"},
            outcome=outcome_of_run(run) if ended else "",
        )

    return read_run
