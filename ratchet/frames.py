"""Ingest rows that a notebook holds."""

import pandas as pd

from blocks.environment import open_environment
from blocks.sources import FrameSource
from tasks.ingestion.datasets import ingest_schema
from tasks.ingestion.landing import ingest_rows
from tasks.shared.models import load_model
from tasks.shared.records import IngestResult
from tasks.shared.rules.model.data import MAIN_TABLE


def ingest_frame(model: str, frame: pd.DataFrame, environment: str = "local", table: str = MAIN_TABLE) -> IngestResult:
    """Ingest a DataFrame into the data set of a model's table, by the same rules as every other source.

    Raises:
        Refusal: there is no such model or table, or the rows are refused; see `tasks.ingestion.landing.ingest_rows`.
        TrustDiffers: the environment is not registered, or its blocks are not those of the trust file.
    """
    data = ingest_schema(load_model(model), table)
    env = open_environment(environment)
    return ingest_rows(env.lake(), data, FrameSource(frame, data.column_kinds), scratch=env.scratch / "ingest")
