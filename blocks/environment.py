"""Environments: the set of adapters (a platform) that a team runs on, such as `local` or `aws`.

Every setting comes from the machine's trust file (`blocks.environment_settings`). The blocks that `register` saves
show the settings on the Prefect UI; a block that differs from the trust file stops a run (`open_environment`).
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args

from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from pydantic import Field, PrivateAttr, ValidationError

from blocks.approvals.base import Approvals
from blocks.batch_inference.base import BatchInference
from blocks.cloud_cleanup.base import CloudCleanup
from blocks.common.aws.cloudwatch_logs import LogGroup
from blocks.common.errors import Rejected
from blocks.common.gateway_settings import DashboardSettings, GatewaySettings
from blocks.common.source_settings import STATE_VARIABLE, SourceSettings, places_in
from blocks.common.trust import ApprovalSettings, Purpose, RequiredApproval, SigningSettings
from blocks.database.ledger import Ledger
from blocks.effects.base import Effects
from blocks.endpoints.base import Endpoint
from blocks.engines.base import Engine
from blocks.environment_settings import (
    MACHINE_FOLDER,
    TRUST_VARIABLE,
    adapter_class,
    configured_ports,
    read_trusted_settings,
)
from blocks.inbox.base import Inbox
from blocks.lake.base import Lake
from blocks.outbox.base import Outbox
from blocks.records.actions import ActionSettings
from blocks.records.alerts import AlertRouting
from blocks.records.people import Person
from blocks.tracking.base import Tracking
from blocks.trainers.base import Trainer

E = TypeVar("E", bound="Environment")


class TrustDiffers(Rejected):
    """What is registered with the Prefect server differs from this machine's trust file."""


class Environment(Block):
    """The adapter of each port, and the settings of an environment.

    The trust file has a table of settings for each adapter; the adapters' own blocks have the environment's name.

    An adapter is given as `module.Class` below `blocks.`; another one needs one new file and one line in
    `deployments/environments/<name>.toml`.
    """

    _block_type_name = "Ratchet environment"
    _block_type_slug = "ratchet-environment"

    name: str = Field(description="The environment's name; the adapters' blocks have the same name.")
    scratch: Path = Field(description="Folder for data that can be recreated: tiers, downloaded models.")
    lake_adapter: str = Field(description="The lake's class, such as blocks.lake.local.LocalLake.")
    trainer_adapter: str = Field(description="The trainer's class.")
    endpoint_adapter: str = Field(description="The endpoint's class.")
    tracking_adapter: str = Field(description="The tracking server's class.")
    ledger_adapter: str = Field(description="The class of the ledger: approvals, effects, inbox and outbox.")
    small_trainer_adapter: str = Field("", description="The class that runs small trainings at no cost; empty: none.")
    batch_inference_adapter: str = Field("", description="The class for batch inference on paid machines; empty: none.")
    cloud_cleanup_adapter: str = Field("", description="The class that ends billable resources; empty: none.")
    engine_adapter: str = Field("blocks.engines.duckdb.DuckDBEngine", description="The engine's class.")

    task_runner: Literal["thread", "dask"] = Field("thread", description="Task runner of the trials of `experiment`.")
    task_runner_address: str = Field(
        "", description="Dask's scheduler, such as tcp://host:8786; empty: a local cluster for each run."
    )

    namespaces: bool = Field(
        default=False, description="Whether personal and branch models (churn--dana) may run here."
    )
    logs: LogGroup | None = Field(
        default=None, description="CloudWatch log group of flow runs; None: Prefect's log only."
    )
    alerts: AlertRouting = Field(default=AlertRouting(), description="Alert routing.")
    evidence_root: str = Field(default="", description="Folder of the evidence packs; empty: below the scratch folder.")
    dashboards: DashboardSettings = Field(default=DashboardSettings(), description="Folder and URL of the dashboards.")
    signing: SigningSettings = Field(default=SigningSettings(), description="Keys for decisions, records and models.")
    approval: ApprovalSettings = Field(default=ApprovalSettings(), description="Approval requirements.")
    actions: ActionSettings = Field(default=ActionSettings(), description="Who may do what beside deciding.")
    people: dict[str, Person] = Field(default={}, description="People by the name they sign with.")
    sources: SourceSettings = Field(default=SourceSettings(), description="Places that sources may be in.")
    gateway: GatewaySettings = Field(default=GatewaySettings(), description="Settings of the gateway.")

    _adapter_settings: dict[str, dict[str, Any]] = PrivateAttr(default_factory=dict)
    """The settings of each adapter, by its class: from the trust file, not from a block."""

    @classmethod
    def from_settings(cls: type[E], name: str, settings: Mapping[str, Any]) -> E:
        """Return the environment that the settings describe, with its adapters. No server is asked.

        Raises:
            Rejected: a setting is unknown or not valid; the message names the key.
        """
        ports = configured_ports(settings)
        if unknown := sorted(settings.keys() - Environment.model_fields.keys() - set(ports)):
            raise Rejected(f"{name}.toml: there is no such setting: {', '.join(unknown)}")
        known = {key: value for key, value in settings.items() if key in Environment.model_fields}
        adapters = {f"{port}_adapter": settings[port]["adapter"] for port in ports}
        try:
            environment = cls(**{**known, **adapters, "name": name, "scratch": Path(settings["scratch"])})
            for purpose in get_args(Purpose):
                environment.signing.trusted_keys(purpose)  # raises Rejected for a public key that cannot be read
            environment._check_isolation(ports, settings)
        except (ValidationError, Rejected) as cause:
            problem = _validation_message(cause) if isinstance(cause, ValidationError) else str(cause)
            raise Rejected(f"{name}.toml: {problem}") from cause
        environment._adapter_settings = {
            settings[port]["adapter"]: {key: value for key, value in settings[port].items() if key != "adapter"}
            for port in ports
        }
        return environment

    def _check_isolation(self, ports: Iterable[str], settings: Mapping[str, Any]) -> None:
        """Raise Rejected when decisions are authenticated here, and training programs run beside the keys."""
        for port in ports if self.approval.require_authentication else ():
            declares = "isolation" in adapter_class(settings[port]["adapter"]).model_fields
            if declares and not settings[port].get("isolation"):
                raise Rejected(
                    f'{port}.isolation: a training program could read keys and tokens; write "bubblewrap", or "none" '
                    "to accept that it reads what this user may (docs/models.md)"
                )

    def adapters(self) -> Iterator[Block]:
        """Yield each adapter of the environment."""
        return (self._adapter(path) for path in self._adapter_settings)

    @property
    def evidence_folder(self) -> Path:
        """The folder of the evidence packs: `<model>/<version>/pack`, its signature beside it."""
        return Path(self.evidence_root) if self.evidence_root else self.scratch / "evidence"

    @property
    def dashboards_folder(self) -> Path:
        """The folder of the pages about models: `<model>.html`, and `index.html`."""
        return Path(self.dashboards.folder) if self.dashboards.folder else self.scratch / "dashboards"

    def allowed_sources(self) -> SourceSettings:
        """Return the places that sources may be in: never the files that this environment itself works with.

        These are every path in its settings and in those of its adapters, the trust files, and the state folder.
        """
        settings = {name: getattr(self, name) for name in Environment.model_fields if name != "sources"}
        variables = [os.environ.get(name) for name in (TRUST_VARIABLE, STATE_VARIABLE)]
        own = [settings, *self.adapters(), MACHINE_FOLDER, *(Path(each).absolute() for each in variables if each)]
        return self.sources.excluding(places_in(own))

    def required_approval(self, model: str) -> RequiredApproval:
        """Return the approval requirements of a model: its own, if there are any, else the general ones."""
        return self.approval.models.get(model, self.approval)

    def lake(self) -> Lake:
        """Return the lake of this environment."""
        return cast(Lake, self._adapter(self.lake_adapter))

    def trainer(self) -> Trainer:
        """Return the trainer of this environment."""
        return cast(Trainer, self._adapter(self.trainer_adapter))

    @property
    def has_small_trainer(self) -> bool:
        """Whether small trainings have a separate trainer."""
        return bool(self.small_trainer_adapter)

    def trainer_for(self, *, small: bool) -> Trainer:
        """Return the trainer for small trainings, which cost nothing, or the trainer of this environment."""
        return cast(Trainer, self._adapter(self.small_trainer_adapter)) if small else self.trainer()

    def endpoint(self) -> Endpoint:
        """Return the endpoint of this environment."""
        return cast(Endpoint, self._adapter(self.endpoint_adapter))

    @property
    def has_batch_inference(self) -> bool:
        """Whether the environment has batch inference on paid machines."""
        return bool(self.batch_inference_adapter)

    def batch_inference(self) -> BatchInference:
        """Return the batch inference of this environment."""
        return cast(BatchInference, self._adapter(self.batch_inference_adapter))

    def tracking(self) -> Tracking:
        """Return the tracking server of this environment."""
        return cast(Tracking, self._adapter(self.tracking_adapter))

    def approvals(self) -> Approvals:
        """Return the approvals of this environment."""
        return self.ledger().approvals(self.signing.chain_trust())

    def effects(self) -> Effects:
        """Return the effects and deployments of this environment."""
        return self.ledger().effects(self.signing.chain_trust())

    def inbox(self) -> Inbox:
        """Return the inbox of webhook deliveries of this environment."""
        return self.ledger().inbox()

    def outbox(self) -> Outbox:
        """Return the outbox of alerts of this environment."""
        return self.ledger().outbox()

    def ledger(self) -> Ledger:
        """Return the database of the four ports above."""
        return cast(Ledger, self._adapter(self.ledger_adapter))

    @property
    def has_cloud_cleanup(self) -> bool:
        """Whether the environment has a cloud account to clean up."""
        return bool(self.cloud_cleanup_adapter)

    def cloud_cleanup(self) -> CloudCleanup:
        """Return the cloud cleanup of this environment."""
        return cast(CloudCleanup, self._adapter(self.cloud_cleanup_adapter))

    def engine(self) -> Engine:
        """Return the SQL engine of this environment."""
        return cast(Engine, self._adapter(self.engine_adapter))

    def _adapter(self, path: str) -> Block:
        adapter, settings = adapter_class(path), self._adapter_settings[path]
        if unknown := sorted(settings.keys() - adapter.model_fields.keys()):
            raise Rejected(f"{self.name}.toml, {path}: there is no such setting: {', '.join(unknown)}")
        try:
            return adapter(**settings)
        except ValidationError as cause:
            raise Rejected(f"{self.name}.toml, {path}: {_validation_message(cause)}") from cause


def _validation_message(cause: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in cause.errors())


def trusted_environment(name: str, folder: Path | None = None) -> Environment:
    """Return the environment of this machine's trust file, whatever is registered with Prefect.

    For what must work while the two differ: alerts, ending paid jobs, the gateway, the audit.

    Raises:
        NoTrustFile: this machine has no such file; see `blocks.environment_settings.trust_file`.
        Rejected: others may change the file, or it is not valid.
    """
    return Environment.from_settings(name, read_trusted_settings(name, folder))


def open_environment(name: str) -> Environment:
    """Return the environment of that name, with the settings of this machine's trust file.

    Raises:
        NoTrustFile, Rejected: as `trusted_environment` does.
        TrustDiffers: it is not registered with this process's Prefect server, a block was changed since it was
            registered, or this machine has another trust file.
    """
    environment = trusted_environment(name)
    check_registered(environment)
    return environment


def check_registered(trusted: Environment) -> None:
    """Compare the environment and each of its adapters with the blocks of that name on the Prefect server.

    The message names settings and no values, because some are passwords.

    Raises:
        TrustDiffers: the environment is not registered: somebody may have deleted its block; a setting differs, or
            the block of an adapter is missing or not valid.
    """
    name, registered = trusted.name, _registered_blocks(trusted.name)
    if trusted.get_block_type_slug() not in registered:
        problem = f"environment {name!r} is not registered with this Prefect server"
        raise TrustDiffers(f"{problem}; run: python -m ratchet register {name}")
    if differing := [each for block in (trusted, *trusted.adapters()) for each in _differences(block, registered)]:
        raise TrustDiffers(
            f"environment {name!r} on the Prefect server is not the one of this machine's trust file: "
            f"{', '.join(differing)}. If nobody should have changed the block, find out who did; then run: "
            f"python -m ratchet register {name}, or correct the trust file (python -m ratchet trust show {name})"
        )


def _registered_blocks(name: str) -> dict[str, dict[str, Any]]:
    """Return the content of every block of that name by the slug of its type, in one request instead of one a block."""
    wanted = {"name": {"any_": [name]}, "is_anonymous": {"eq_": False}}
    with get_client(sync_client=True) as client:
        found = client.request(
            "POST", "/block_documents/filter", json={"block_documents": wanted, "include_secrets": True}
        )
    return {block["block_type"]["slug"]: block["data"] for block in found.json()}


def _differences(trusted: Block, registered: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the names of the settings in which a trusted block and the registered one differ.

    A default that each process computes, such as its interpreter, is left out: the trust file does not have it.
    """
    kind = type(trusted)
    slug = kind.get_block_type_slug()
    if slug not in registered:
        return [f"{slug} is missing"]
    try:
        block = kind(**registered[slug])
    except ValidationError:
        return [f"{slug} is not valid"]
    fields = {
        field
        for field, info in kind.model_fields.items()
        if field in trusted.model_fields_set or info.default_factory is None
    }
    return sorted(f"{slug}.{field}" for field in fields if getattr(trusted, field) != getattr(block, field))
