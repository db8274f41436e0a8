"""Record of one comparison of a challenger with the champion: at which level it was allowed to find better."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Comparison:
    """One comparison on the holdout. `number` counts those of a model in an environment from 1.

    Attributes:
        version: the challenger.
        terms: metric, rule, margin and confidence, as text.
        holdout_digest: SHA-256 of the holdout rows.
        predictions_digest: SHA-256 of the challenger's predictions of them.
        level: the one-sided level: the probability of a wrong `better`.
        budget: the error budget that `level` was taken from; 0 when the comparison had none.
    """

    model: str
    environment: str
    number: int
    champion: str
    version: str
    terms: str
    holdout_digest: str
    predictions_digest: str
    level: float
    budget: float
    at: datetime
