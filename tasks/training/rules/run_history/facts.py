"""What is known of a run that trained a model: enough to list it, to compare it, and to make it again."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True)
class TrainingRun:
    """One run, as it was recorded; text is "" where nothing was.

    Attributes:
        model: the model's name, with the namespace.
        version: the version that was registered of it.
        as_of: what `as_of` has to be, for the lake to return the same rows.
        has_uncommitted_changes: whether files differed from the commit.
        verdict: pass, hold or inconclusive.
        predictions_digest: digest over the predictions of all holdout rows, bit by bit.
        is_deployed: whether its version serves now.
        parameters: the hyperparameters as text, `seed` among them; read for one run, not for a list.
        runtime: Python, platform and packages by name; read for one run, not for a list.
    """

    id: str
    model: str
    version: str
    requested_by: str
    at: datetime | None
    status: str
    tier: str
    as_of: str
    data_digest: str
    holdout: str
    commit: str
    has_uncommitted_changes: bool
    metrics: Mapping[str, float]
    verdict: str
    predictions_digest: str
    is_deployed: bool
    url: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    runtime: Mapping[str, str] = field(default_factory=dict)
