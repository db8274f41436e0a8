"""Train the flights model: gradient boosting on ordinal codes, by the SageMaker container contract."""

import json
import os
from pathlib import Path

import mlflow
import mlflow.sklearn
import pandas as pd
import yaml
from mlflow.models import infer_signature
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

data = yaml.safe_load((Path(__file__).parent / "model.yaml").read_text())["data"]
chosen = json.loads(os.environ["SM_HPS"])
rows, newer = (pd.read_parquet(os.environ[f"SM_CHANNEL_{name}"]) for name in ("TRAIN", "VALIDATION"))
features, target = rows[list(data["features"])], rows[data["target"]]
words = [name for name, kind in data["features"].items() if kind == "category"]

codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-1)
booster = HistGradientBoostingClassifier(
    max_iter=int(chosen["max_iter"]), learning_rate=float(chosen["learning_rate"]), random_state=int(chosen["seed"])
)
model = make_pipeline(make_column_transformer((codes, words), remainder="passthrough"), booster)
model.fit(features, target)

with mlflow.start_run(run_id=os.environ.get("MLFLOW_RUN_ID")):
    mlflow.log_params(chosen)
    likely = model.predict_proba(newer[list(data["features"])])[:, list(model.classes_).index(data["classes"][1])]
    mlflow.log_metric("validation_auc", roc_auc_score(newer[data["target"]] == data["classes"][1], likely))
    saved = {
        "signature": infer_signature(features, model.predict_proba(features[:5])),
        "input_example": features[:3],
        "pyfunc_predict_fn": "predict_proba",
        "serialization_format": "skops",
        "skops_trusted_types": ["sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"],
        "pip_requirements": ["scikit-learn", "skops"],
    }
    mlflow.sklearn.log_model(model, name="model", **saved)
    mlflow.sklearn.save_model(model, os.environ["SM_MODEL_DIR"] + "/model", **saved)
