"""The evaluation of two models' predictions for the holdout rows of a tier."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from tasks.evaluation.rules.evaluation import Evaluation, count_leaked, evaluate_predictions
from tasks.evaluation.rules.spending import SpentLevel
from tasks.shared.models import TeamModel
from tasks.shared.records import TierData


def evaluate_on_holdout(
    model: TeamModel,
    data: TierData,
    rows: pd.DataFrame,
    challenger: np.ndarray,
    champion: np.ndarray | None,
    champion_version: str,
    seed: int,
    spent_level: SpentLevel | None = None,
) -> Evaluation:
    """Evaluate both models' predictions of the holdout rows, and count the entities that also occur in training."""
    spec = model.spec
    keys = pq.read_table(data.train, columns=[spec.data.entity])[spec.data.entity]
    return evaluate_predictions(
        task_type=spec.task,
        classes=spec.data.classes,
        spec=spec.evaluation,
        truth=rows[spec.data.target],
        slice_columns=rows[[rule.column for rule in spec.evaluation.slices]],
        challenger=challenger,
        champion=champion,
        champion_version=champion_version,
        leaked_entities=count_leaked(keys, rows[spec.data.entity]),
        seed=seed,
        spent_level=spent_level,
        training_rows=data.train_rows,
    )
