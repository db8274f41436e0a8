"""What one task hands to the next: small, frozen, stored as JSON between the parts of a flow run."""

from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from tasks.cleanup.rules.garbage.cloud import CloudAction


class TaskRecord(BaseModel):
    """Base of all records: frozen, and no key that is not declared."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class IngestResult(TaskRecord):
    """What `ingest` did: the snapshot that holds the rows, and the counts."""

    dataset: str
    snapshot: str
    rows_in: int
    accepted: int
    quarantined: int
    quarantine_snapshot: str = ""
    appended: bool = True


class TierData(TaskRecord):
    """The rows of a tier, split once, as Parquet files below `train` and `holdout`: one, rows.parquet, or many.

    `as_of` is the main table's snapshot and `tables` those of the further ones, by name; `reread_time` is a time as
    of which the same snapshots are read again. `data_digest` fixes the read of the lake, `digest` this tier of
    it, `holdout_digest` the rows that decide: their content in order, whichever engine wrote them.
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
    tables: dict[str, str] = {}
    reread_time: str = ""

    @property
    def train(self) -> Path:
        """Folder of the rows that train."""
        return self.folder / "train"

    @property
    def holdout(self) -> Path:
        """Folder of the rows that decide, and never train."""
        return self.folder / "holdout"


class PublishResult(TaskRecord):
    """Rows kept as a data set of the lake for other models: its newest snapshot, and how many rows it added."""

    dataset: str
    snapshot: str
    rows: int
    new: bool = True


class MaintenanceResult(TaskRecord):
    """What a round of maintenance did, or would do: files taken together, orphans removed, reads verified.

    `reads_reverified` of the reads were read once more after something had changed, and returned the same rows.
    """

    datasets: tuple[str, ...]
    files_merged: int
    orphan_files: int
    bytes_removed: int
    reads_verified: int
    reads_reverified: int
    dry_run: bool


class ValidationResult(TaskRecord):
    """How many expectations held on the tier's rows. A tier on which one failed has no such record.

    `report_markdown` is the markdown for people.
    """

    suite: str
    rows: int
    expectations_passed: int
    report_markdown: str


class CodeProvenance(TaskRecord):
    """Which code made a model: the commit, and the SHA-256 of the patch on top of it ("" when clean)."""

    commit: str
    patch_digest: str
    patch: str = ""


class CostEstimate(TaskRecord):
    """What a run may cost at worst, in US dollars, and that the budget allows it. `use_local_trainer`: the unpaid trainer takes it.

    `serving_usd_month` is None where nothing is paid for serving.
    """

    use_local_trainer: bool
    is_paid: bool
    worst_case_usd: float
    serving_usd_month: float | None
    explanation: str


class TrainingResult(TaskRecord):
    """A challenger: its registered version, the run that made it, and the digest of its exact artifact.

    `cost_usd` is what its training cost in US dollars, `serving_usd_month` what serving it may cost a month at
    worst; None where nothing was paid for.
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
    """What the evaluation found; `champion_version` is "" for a first model, `failed_gates` name what did not open.

    `digest_predictions` is the SHA-256 over the predictions of all holdout rows, bit by bit.

    `golden_request` holds a few holdout rows as posted to `/invocations`, `golden_predictions` what the model
    said of them (JSON): what a server that runs this model must answer.
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


class PendingApproval(TaskRecord):
    """An approval request that waits in the ledger."""

    request_id: str
    digest: str
    expires_at: datetime
    request_markdown: str


class DeploymentResult(TaskRecord):
    """What an endpoint serves after a deployment or a rollback.

    `preflight_json` is what the real server said before the switch, as JSON; "" where there was none.
    """

    model: str
    version: str
    replaced_version: str
    url: str
    seconds: float
    preflight_json: str = ""


class EvidencePack(TaskRecord):
    """Where the evidence pack of a version lies, and the digest over its files."""

    model: str
    version: str
    folder: Path
    digest: str


class ReproductionResult(TaskRecord):
    """What became of training a version again: the verdict, and which input differed if any did."""

    model: str
    version: str
    verdict: Literal["bit-identical", "metric-identical", "different", "not reproducible"]
    differing_inputs: tuple[str, ...]
    metrics: dict[str, float]
    predictions_digest: str
    seconds: float


class DeliveryResult(TaskRecord):
    """What became of the messages in the outbox: taken by a receiver, refused or out of reach, not yet their time."""

    delivered: int
    failed: int
    not_due: int


class BatchInferenceResult(TaskRecord):
    """Where a batch of predictions lies, and which version made them."""

    dataset: str
    snapshot: str
    rows: int
    version: str


class InferenceLogResult(TaskRecord):
    """What was brought from an endpoint's log into the lake."""

    dataset: str
    segments: int
    rows: int
    seconds: float


class AlertEvent(TaskRecord):
    """An event that a look at a model ends in: its causes, each as cause:column, how severe, and the sentence."""

    event: str
    cause_columns: tuple[str, ...]
    severity: Literal["warning", "critical"]
    sentence: str
    details: tuple[str, ...]


class MonitoringResult(TaskRecord):
    """What a look at a model found; `folder` holds the report, the plot and the samples.

    `psi_by_column` are the population stability indices of the newest window by column, `rows_per_window` those of the windows,
    `cleared_events` the events that were looked for and not found.
    """

    model: str
    version: str
    run_id: str
    outcome: Literal["Quiet", "Drift", "Degraded", "CouldNotCheck"]
    summary: str
    rows_per_window: tuple[int, ...]
    alert_events: tuple[AlertEvent, ...]
    cleared_events: tuple[str, ...]
    psi_by_column: dict[str, float]
    folder: Path


class AutoRetrainDecision(TaskRecord):
    """What comes of an alert: nothing where model.yaml does not want it, a retraining, or a refusal with its reasons.

    `alert_record_key` is that of the alert's signal: one signal starts one run at most.
    """

    outcome: Literal["Off", "Retraining", "Refused"]
    alert_record_key: str
    summary: str
    trigger_reason: str
    requested_by: str


class DashboardResult(TaskRecord):
    """A model's dashboard: what it says in one sentence, its file, and where that is served ("" for nowhere)."""

    model: str
    headline: str
    path: Path
    url: str


class Trial(TaskRecord):
    """One trial of an experiment: what was tried, and its validation metric (None when it failed)."""

    number: int
    parameters: dict[str, int | float | str | bool]
    value: float | None
    run_id: str
    run_url: str
    reason: str = ""


class PlannedRemoval(TaskRecord):
    """One thing that a sweep removes: its kind and name, what it is, and the bytes that this frees."""

    key: str
    description: str
    bytes: int


class GarbageCollectionPlan(TaskRecord):
    """What a sweep would remove, dependents first; what stays, counted by reason; and what it would end in a cloud."""

    remove: tuple[PlannedRemoval, ...]
    kept_counts: dict[str, int]
    cloud_actions: tuple[CloudAction, ...] = ()

    @property
    def bytes(self) -> int:
        """What the removals free."""
        return sum(each.bytes for each in self.remove)


class GarbageCollectionResult(TaskRecord):
    """What a sweep did; `skipped` of the planned things were needed by then, or gone."""

    removed: int
    bytes: int
    skipped: int
