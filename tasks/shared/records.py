"""The results that tasks pass on: small frozen records, which Prefect stores as JSON."""

from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from tasks.evaluation.rules.spending import SpentLevel


class TaskRecord(BaseModel):
    """Base of all records: frozen, without undeclared keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class IngestResult(TaskRecord):
    """The result of `ingest`: the snapshot that holds the rows, the counts, and a sentence about them for people."""

    dataset: str
    snapshot: str
    rows_in: int
    accepted: int
    quarantined: int
    quarantine_snapshot: str = ""
    appended: bool = True
    summary: str = ""


class TierData(TaskRecord):
    """The rows of a tier, split into train and holdout, as Parquet files: rows.parquet, or several files.

    `as_of` is the main table's snapshot, `tables` are those of the joined tables by name. `reread_as_of`
    is the as-of (a snapshot's id or a time) by which the same snapshots are read again. `data_digest` identifies the
    read of the lake, `digest` the tier, and `holdout_digest` the content of the holdout rows in order. `values` is the
    version of the forms of its values (`runtime.values`); empty if an earlier release has ingested some of them.

    `holdout_rule` is the canonical text of the rule, `cut_off` the time from which on rows are in the holdout, and
    `trained_until` the newest time of the training and validation rows (ISO 8601 in UTC; "" where rows have no time or
    are not divided by it). `unused_rows` are in neither part: those within the gap, and by group and time those of the
    other side's groups.
    """

    model: str
    tier: str
    as_of: str
    data_digest: str
    digest: str
    folder: Path
    train_rows: int
    holdout_rows: int
    holdout_digest: str
    reread_as_of: str
    tables: dict[str, str] = {}
    holdout_rule: str = ""
    cut_off: str = ""
    trained_until: str = ""
    validation_rows: int = 0
    unused_rows: int = 0
    values: str = ""

    @property
    def train(self) -> Path:
        """Folder of the training rows."""
        return self.folder / "train"

    @property
    def training_parts(self) -> dict[str, Path]:
        """Folders of what the training program gets, by channel: the training rows, and validation rows if any."""
        names = ["train", *(["validation"] if self.validation_rows else [])]
        return {name: self.folder / name for name in names}

    @property
    def evaluated_parts(self) -> tuple[Path, ...]:
        """Folders of the rows that train, validate or are in the holdout."""
        return (*self.training_parts.values(), self.holdout)

    @property
    def evaluated_rows(self) -> int:
        """The number of rows in `evaluated_parts`."""
        return self.train_rows + self.validation_rows + self.holdout_rows

    @property
    def all_rows(self) -> int:
        """The number of rows in `all_parts`."""
        return self.evaluated_rows + self.unused_rows

    @property
    def all_parts(self) -> tuple[Path, ...]:
        """Folders of all rows of the tier, those in neither part included."""
        return (*self.evaluated_parts, *([self.folder / "unused"] if self.unused_rows else []))

    @property
    def holdout(self) -> Path:
        """Folder of the holdout rows, which never train."""
        return self.folder / "holdout"


class PublishResult(TaskRecord):
    """The result of publishing rows for other models: the snapshot, and how many rows it added."""

    dataset: str
    snapshot: str
    rows: int
    new: bool = True


class ValidationResult(TaskRecord):
    """The result of a passed validation: how many expectations passed. A failed one raises Refusal.

    `report_markdown` is the report for people.
    """

    suite: str
    rows: int
    expectations_passed: int
    report_markdown: str


class CodeProvenance(TaskRecord):
    """The code that trained a model: the commit, and the uncommitted patch with its SHA-256 ("" when clean)."""

    commit: str
    patch_digest: str
    patch: str = ""


class CostEstimate(TaskRecord):
    """The worst-case cost of a run in US dollars, which the budget allows.

    `use_local_trainer` selects the unpaid local trainer. `serving_usd_month` is None when serving costs nothing.
    """

    use_local_trainer: bool
    is_paid: bool
    worst_case_usd: float
    serving_usd_month: float | None
    explanation: str


class TrainingResult(TaskRecord):
    """A challenger: its registered version, its run, and the digest of its files.

    `cost_usd` is the cost of its training in US dollars, `serving_usd_month` the worst-case cost of serving it for a
    month; None when nothing is paid.
    """

    version: str
    run_id: str
    run_url: str
    version_url: str
    model_path: Path
    model_digest: str
    parameters: dict[str, str]
    seed: int
    commit: str
    patch_digest: str
    seconds: float
    cost_usd: float | None = None
    serving_usd_month: float | None = None


class EvaluationResult(TaskRecord):
    """The result of an evaluation. `champion_version` is "" for a first model; `failed_gates` lists the failed gates.

    `deciding_metric` is the one by which challenger and champion are compared, on holdout rows newer than
    `compared_since` ("" on all); `spent_level` is what that comparison spent. `predictions_digest` is the SHA-256 over
    the predictions of all holdout rows, bit by bit. `golden_request` holds a few holdout rows as posted to
    `/invocations`, `golden_predictions` the model's predictions for them (JSON).
    """

    verdict: Literal["pass", "hold", "inconclusive"]
    reasons: tuple[str, ...]
    metrics: dict[str, float]
    champion_version: str
    champion_metrics: dict[str, float]
    golden_request: str
    golden_predictions: str
    failed_gates: tuple[str, ...] = ()
    predictions_digest: str = ""
    deciding_metric: str = ""
    spent_level: SpentLevel | None = None
    compared_since: str = ""


class PendingApproval(TaskRecord):
    """An approval request that waits for a decision."""

    request_id: str
    digest: str
    expires_at: datetime
    request_markdown: str


class DeploymentResult(TaskRecord):
    """A deployment or rollback. `registry_problem` says why the registry does not agree yet; "" when it does."""

    model: str
    version: str
    replaced_version: str
    url: str
    seconds: float
    preflight_json: str = ""
    registry_problem: str = ""


class EvidencePack(TaskRecord):
    """The evidence pack of a version: its folder, and the digest over its files."""

    model: str
    version: str
    folder: Path
    digest: str


class ReproductionResult(TaskRecord):
    """The result of retraining a version for reproduction: the verdict, and the inputs that differ."""

    model: str
    version: str
    verdict: Literal["bit-identical", "metric-identical", "different", "not reproducible"]
    differing_inputs: tuple[str, ...]
    metrics: dict[str, float]
    predictions_digest: str
    seconds: float


class DeliveryResult(TaskRecord):
    """The result of a delivery: how many messages were delivered, failed, or are not due yet."""

    delivered: int
    failed: int
    not_due: int


class BatchInferenceResult(TaskRecord):
    """The result of batch inference: the snapshot with the predictions, and the version that made them."""

    dataset: str
    snapshot: str
    rows: int
    version: str


class InferenceLogResult(TaskRecord):
    """The result of ingesting an endpoint's inference log into the lake."""

    dataset: str
    segments: int
    rows: int
    seconds: float


class AlertEvent(TaskRecord):
    """An alert raised by a monitoring run: its causes (each as cause:column), severity and summary."""

    event: str
    cause_columns: tuple[str, ...]
    severity: Literal["warning", "critical"]
    sentence: str
    details: tuple[str, ...]


class MonitoringResult(TaskRecord):
    """The result of a monitoring run; `folder` holds the report, the plot and the samples.

    `psi_by_column` holds the population stability indices of the newest window, `rows_per_window` the rows of each
    window, and `cleared_events` the events that were checked and did not occur.
    """

    model: str
    version: str
    run_id: str
    outcome: Literal["no_drift", "drift", "degraded", "not_checked"]
    summary: str
    rows_per_window: tuple[int, ...]
    alert_events: tuple[AlertEvent, ...]
    cleared_events: tuple[str, ...]
    psi_by_column: dict[str, float]
    folder: Path


class AutoRetrainDecision(TaskRecord):
    """The decision on an alert: automatic retraining is off, was started, or was refused with reasons.

    `alert_record_key` is the ledger key of the alert. One alert starts at most one run.
    """

    outcome: Literal["off", "started", "refused"]
    alert_record_key: str
    summary: str
    trigger_reason: str
    requested_by: str


class DashboardResult(TaskRecord):
    """A model's dashboard: its headline, its file, and its address ("" when it is not served)."""

    model: str
    headline: str
    path: Path
    url: str


class Trial(TaskRecord):
    """One trial of an experiment: its parameters, and its validation metric (None when it failed)."""

    number: int
    parameters: dict[str, int | float | str | bool]
    value: float | None
    run_id: str
    run_url: str
    reason: str = ""
