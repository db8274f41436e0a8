"""An environment names the set of adapters that a team runs on: `local`, `staging`, `production`."""

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
from blocks.common.trust import ApprovalSettings, Person, RequiredApproval, SigningSettings
from blocks.database.ledger import Ledger
from blocks.effects.base import Effects
from blocks.endpoints.base import Endpoint
from blocks.engines.base import Engine
from blocks.inbox.base import Inbox
from blocks.lake.base import Lake
from blocks.outbox.base import Outbox
from blocks.tracking.base import Tracking
from blocks.trainers.base import Trainer


class AlertChannel(BaseModel):
    """Where alerts go: a notification block, and what it is told of: by default warnings and graver, of every model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, description="The channel's name; messages bear it.")
    block: str = Field(pattern=r"^[a-z0-9-]+/.+$", description="A notification block: slack-webhook/team.")
    min_severity: Literal["info", "warning", "critical"] = Field(
        default="warning", description="The least severity to be told of."
    )
    models: tuple[str, ...] = Field(default=("*",), description="Patterns of models.")
    events: tuple[str, ...] = Field(default=("*",), description="Patterns of events, such as release.*.")


class AlertRouting(BaseModel):
    """Who is told of what, and how often what lasts is told again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    remind_hours: float = Field(default=24.0, ge=0, description="Hours between reminders of what lasts. 0 is none.")
    channels: tuple[AlertChannel, ...] = Field(
        default=(), description="Where alerts go. None: they are listed by `make alerts`."
    )


class DashboardSettings(BaseModel):
    """Where the pages about models are kept, and at which address they are served."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: str = Field(default="", description="Folder of the pages; empty: below scratch.")
    url: str = Field(
        default="", pattern=r"^(https?://.+)?$", description="Where that folder is served; empty: nowhere."
    )


class Environment(Block):
    """Which adapter stands behind each port. The adapters' own blocks bear the environment's name.

    An adapter is written as `module.Class` below `blocks.`; a second one is one new file and one line in
    `deployments/environments/<name>.toml`.
    """

    _block_type_name = "Ratchet environment"
    _block_type_slug = "ratchet-environment"

    name: str = Field(description="The environment's name; the adapters' blocks bear the same name.")
    scratch: Path = Field(description="Folder for what can be made again: tiers as files, fetched models.")
    lake_adapter: str = Field(description="The lake's class, such as blocks.lake.local.LocalLake.")
    trainer_adapter: str = Field(description="The trainer's class.")
    endpoint_adapter: str = Field(description="The endpoint's class.")
    tracking_adapter: str = Field(description="The tracking server's class.")
    ledger_adapter: str = Field(description="The class of the ledger: approvals, effects, inbox and outbox.")
    small_trainer_adapter: str = Field("", description="The class that trains small work unpaid; empty: there is none.")
    batch_inference_adapter: str = Field(
        "", description="The class that predicts on paid machines; empty: there is none."
    )
    cloud_cleanup_adapter: str = Field(
        "", description="The class by which paid work is tidied up; empty: there is none."
    )
    engine_adapter: str = Field("blocks.engines.duckdb.DuckDBEngine", description="The engine's class.")

    task_runner: Literal["thread", "dask"] = Field("thread", description="Where the trials of `experiment` run.")
    task_runner_address: str = Field(
        "", description="Dask's scheduler, such as tcp://host:8786; empty: a cluster of this machine for each run."
    )

    namespaces: bool = Field(default=False, description="Whether models in namespaces (churn--dana) may run here.")
    logs: LogGroup | None = Field(default=None, description="Where flow runs' log lines go, too; none: Prefect alone.")
    alerts: AlertRouting = Field(default=AlertRouting(), description="Who is told of what.")
    evidence_root: str = Field(default="", description="Folder that keeps the evidence packs; empty: below scratch.")
    dashboards: DashboardSettings = Field(default=DashboardSettings(), description="Where the pages about models are.")
    signing: SigningSettings = Field(default=SigningSettings(), description="Keys for decisions and models.")
    approval: ApprovalSettings = Field(default=ApprovalSettings(), description="What approvals take here.")
    people: dict[str, Person] = Field(default={}, description="Who is who, and bears which roles.")
    gateway: GatewaySettings = Field(
        default=GatewaySettings(), description="Where people decide, and how they sign in there."
    )

    @property
    def evidence_folder(self) -> Path:
        """The folder of the evidence packs: `<model>/<version>/pack`, its signature beside it."""
        return Path(self.evidence_root) if self.evidence_root else self.scratch / "evidence"

    @property
    def dashboards_folder(self) -> Path:
        """The folder of the pages about models: `<model>.html`, and `index.html`."""
        return Path(self.dashboards.folder) if self.dashboards.folder else self.scratch / "dashboards"

    def required_approval(self, model: str) -> RequiredApproval:
        """Return the rules for a model: its own, where there are any."""
        return self.approval.models.get(model, self.approval)

    def lake(self) -> Lake:
        """Return the lake of this environment."""
        return cast(Lake, self._adapter(self.lake_adapter))

    def trainer(self) -> Trainer:
        """Return the trainer of this environment."""
        return cast(Trainer, self._adapter(self.trainer_adapter))

    @property
    def has_small_trainer(self) -> bool:
        """Whether small work has a trainer of its own."""
        return bool(self.small_trainer_adapter)

    def trainer_for(self, *, small: bool) -> Trainer:
        """Return the trainer for small work, which is not paid for, or the trainer of this environment."""
        return cast(Trainer, self._adapter(self.small_trainer_adapter)) if small else self.trainer()

    def endpoint(self) -> Endpoint:
        """Return the endpoint of this environment."""
        return cast(Endpoint, self._adapter(self.endpoint_adapter))

    @property
    def has_batch_inference(self) -> bool:
        """Whether batch predictions may be made on paid machines."""
        return bool(self.batch_inference_adapter)

    def batch_inference(self) -> BatchInference:
        """Return what predicts on paid machines in this environment."""
        return cast(BatchInference, self._adapter(self.batch_inference_adapter))

    def tracking(self) -> Tracking:
        """Return the tracking server of this environment."""
        return cast(Tracking, self._adapter(self.tracking_adapter))

    def approvals(self) -> Approvals:
        """Return what people were asked and decided in this environment."""
        return self._ledger().approvals()

    def effects(self) -> Effects:
        """Return what was done and deployed in this environment."""
        return self._ledger().effects()

    def inbox(self) -> Inbox:
        """Return what git hosts delivered to this environment."""
        return self._ledger().inbox()

    def outbox(self) -> Outbox:
        """Return the alerts of this environment."""
        return self._ledger().outbox()

    def _ledger(self) -> Ledger:
        """Return the database of the four ports above."""
        return cast(Ledger, self._adapter(self.ledger_adapter))

    @property
    def has_cloud_cleanup(self) -> bool:
        """Whether something runs in a cloud account."""
        return bool(self.cloud_cleanup_adapter)

    def cloud_cleanup(self) -> CloudCleanup:
        """Return what runs in the cloud account of this environment."""
        return cast(CloudCleanup, self._adapter(self.cloud_cleanup_adapter))

    def engine(self) -> Engine:
        """Return the engine of this environment: where SQL over the lake's files is computed."""
        return cast(Engine, self._adapter(self.engine_adapter))

    def _adapter(self, path: str) -> Block:
        return cast(Block, adapter_class(path).load(self.name))


def adapter_class(path: str) -> type[Block]:
    """Return the adapter class that `path` ("blocks.lake.local.LocalLake") names.

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
        NotFound: nobody has registered it with the Prefect server that this process talks to.
    """
    try:
        return cast(Environment, Environment.load(name))
    except ValueError as cause:
        problem = f"environment {name!r} is not registered with this Prefect server"
        raise NotFound(f"{problem}; run: python -m ratchet register {name}") from cause
