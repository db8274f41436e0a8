"""The bare script that `retrain` is compared with: the same work in one process, as in a notebook.

`python bare.py ROWS.parquet MODEL_FOLDER MLFLOW_URL`: read, sample, validate, train, evaluate, log.
"""

import json
import sys
import time
from pathlib import Path

import great_expectations as gx
import lightgbm as lgb
import mlflow
import numpy as np
import pandas as pd
import yaml
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
from mlflow.models import infer_signature
from sklearn.compose import ColumnTransformer
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder

TRUSTED = ["collections.OrderedDict", "lightgbm.basic.Booster", "lightgbm.sklearn.LGBMClassifier"]
took: dict[str, float] = {}
clock = time.monotonic()


def lap(stage: str) -> None:
    """Record the seconds since the last lap."""
    global clock  # noqa: PLW0603
    took[stage] = time.monotonic() - clock
    clock = time.monotonic()


rows_file, folder, uri = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
spec = yaml.safe_load((folder / "model.yaml").read_text())
data, chosen = spec["data"], spec["training"]["parameters"]
features, target = list(data["features"]), data["target"]
words = [name for name, kind in data["features"].items() if kind == "category"]
rows = pd.read_parquet(rows_file)
lap("read")

holdout = pd.util.hash_array(rows[data["entity"]].astype(str).to_numpy()) % 10_000 < spec["holdout"] * 10_000
lap("sample")

suite = gx.ExpectationSuite(name="bare")
for rule in yaml.safe_load((folder / "expectations.yaml").read_text())["expectations"]:
    suite.add_expectation_configuration(ExpectationConfiguration(type=rule["type"], kwargs=rule["kwargs"]))
context = gx.get_context(mode="ephemeral")
asset = context.data_sources.add_pandas("rows").add_dataframe_asset("rows")
batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": rows})
verdict = batch.validate(suite, result_format="SUMMARY")
if not verdict.success:
    sys.exit(str([str(r.expectation_config) for r in verdict.results if not r.success]))
lap("check")

mlflow.set_tracking_uri(uri)
mlflow.set_experiment("bare")
with mlflow.start_run():
    x, y = rows.loc[~holdout, features], rows.loc[~holdout, target]
    x = x.astype({name: float for name in features if name not in words})
    fit_x, seen_x, fit_y, seen_y = train_test_split(x, y, test_size=0.15, random_state=7)
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    columns = ColumnTransformer([("words", codes, words)], remainder="passthrough")
    booster = lgb.LGBMClassifier(
        **chosen, subsample_freq=1, deterministic=True, force_row_wise=True, n_jobs=2, random_state=7, verbosity=-1
    )
    curve: dict[str, dict[str, list[float]]] = {}
    fitted = columns.fit(fit_x)
    booster.fit(
        fitted.transform(fit_x),
        fit_y,
        eval_set=[(fitted.transform(seen_x), seen_y)],
        eval_metric=["auc", "binary_logloss"],
        callbacks=[lgb.record_evaluation(curve)],
    )
    model = Pipeline([("columns", fitted), ("booster", booster)])
    mlflow.log_params({**chosen, "seed": 7})
    for step, value in enumerate(next(iter(curve.values()))["auc"]):
        if step % 10 == 0:
            mlflow.log_metric("validation_auc", value, step=step)
    lap("train")
    truth, chance = rows.loc[holdout, target] == data["classes"][1], model.predict_proba(rows.loc[holdout, features])
    positive = chance[:, 1]
    mlflow.log_metrics(
        {
            "auc": roc_auc_score(truth, positive),
            "average_precision": average_precision_score(truth, positive),
            "log_loss": log_loss(truth, chance),
            "brier": brier_score_loss(truth, positive),
            "accuracy": float(np.mean((positive > 0.5) == truth)),
        }
    )
    lap("evaluate")
    mlflow.sklearn.log_model(
        model,
        name="model",
        signature=infer_signature(x[:5], chance[:5]),
        input_example=x[:3],
        pyfunc_predict_fn="predict_proba",
        serialization_format="skops",
        skops_trusted_types=TRUSTED,
        pip_requirements=["lightgbm", "scikit-learn", "skops"],
    )
    lap("log")
print(json.dumps(took))
