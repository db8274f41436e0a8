"""Environments: the set of adapters (a platform) that a team runs on, such as `local` or `aws`."""

from importlib import import_module
from pathlib import Path
from typing import Literal, cast

from prefect.blocks.core import Block
from pydantic import BaseModel, ConfigDict, Field

from blocks.approvals.base import Approvals
from blocks.batch_inference.base import BatchInference
from blocks.cloud_cleanup.base import CloudCleanup
from blocks.common.aws.cloudwatch_logs import LogGroup
from blocks.common.errors import NotFound
from blocks.common.gateway_settings import GatewaySettings
from blocks.common.trust import ApprovalSettings, RequiredApproval, SigningSettings
from blocks.database.ledger import Ledger
from blocks.effects.base import Effects
from blocks.endpoints.base import Endpoint
from blocks.engines.base import Engine
from blocks.inbox.base import Inbox
from blocks.lake.base import Lake
from blocks.outbox.base import Outbox
from blocks.records.alerts import AlertChannel
from blocks.records.people import Person
from blocks.tracking.base import Tracking
from blocks.trainers.base import Trainer


class AlertRouting(BaseModel):
    """Alert routing: the channels, and how often an open alert is repeated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    remind_hours: float = Field(default=24.0, ge=0, description="Hours between reminders of an open alert; 0: none.")
    channels: tuple[AlertChannel, ...] = Field(
        default=(), description="The channels; without any, `make alerts` lists the alerts."
    )


class DashboardSettings(BaseModel):
    """Folder and URL of the dashboards, the pages about models."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: str = Field(default="", description="Folder of the pages; empty: below the scratch folder.")
    url: str = Field(
        default="", pattern=r"^(https?://.+)?$", description="URL at which that folder is served; empty: none."
    )


class Environment(Block):
    """The adapter of each port, and the settings of an environment. The adapters' own blocks have the same name.

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
    people: dict[str, Person] = Field(default={}, description="People by the name they sign with.")
    gateway: GatewaySettings = Field(default=GatewaySettings(), description="Settings of the gateway.")

    @property
    def evidence_folder(self) -> Path:
        """The folder of the evidence packs: `<model>/<version>/pack`, its signature beside it."""
        return Path(self.evidence_root) if self.evidence_root else self.scratch / "evidence"

    @property
    def dashboards_folder(self) -> Path:
        """The folder of the pages about models: `<model>.html`, and `index.html`."""
        return Path(self.dashboards.folder) if self.dashboards.folder else self.scratch / "dashboards"

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
        return self._ledger().approvals(self.signing.chain_trust())

    def effects(self) -> Effects:
        """Return the effects and deployments of this environment."""
        return self._ledger().effects(self.signing.chain_trust())

    def inbox(self) -> Inbox:
        """Return the inbox of webhook deliveries of this environment."""
        return self._ledger().inbox()

    def outbox(self) -> Outbox:
        """Return the outbox of alerts of this environment."""
        return self._ledger().outbox()

    def _ledger(self) -> Ledger:
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
        return cast(Block, adapter_class(path).load(self.name))


def adapter_class(path: str) -> type[Block]:
    """Return the adapter class with this dotted path ("blocks.lake.local.LocalLake").

    Raises:
        NotFound: the path is not below `blocks.`, or there is no such module or class.
    """
    module, _, name = path.rpartition(".")
    if not module.startswith("blocks."):
        raise NotFound(f"adapter {path!r} is not below 'blocks.'; adapters live there, one file each")
    try:
        return cast(type[Block], getattr(import_module(module), name))
    except (ImportError, AttributeError) as cause:
        raise NotFound(f"there is no adapter {path!r}: {cause}") from cause


def open_environment(name: str) -> Environment:
    """Return the environment of that name.

    Raises:
        NotFound: it is not registered with this process's Prefect server.
    """
    try:
        return cast(Environment, Environment.load(name))
    except ValueError as cause:
        problem = f"environment {name!r} is not registered with this Prefect server"
        raise NotFound(f"{problem}; run: python -m ratchet register {name}") from cause
