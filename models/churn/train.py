"""Train the churn model: LightGBM on the columns that the `model.yaml` beside this file declares.

It runs anywhere by the SageMaker container contract and imports nothing of the project: training rows as
Parquet in `$SM_CHANNEL_TRAIN`, validation rows in `$SM_CHANNEL_VALIDATION` where there are any,
hyperparameters as a JSON object in `$SM_HPS` or as `--key value`, the model folder in `$SM_MODEL_DIR`.
With `MLFLOW_TRACKING_URI` and `MLFLOW_RUN_ID` it joins that run: parameters, the validation curve, and
the model, logged once. What it cannot use it refuses: exit code 1 and one line that says where, what and
what to do. The same rows, hyperparameters and seed give the same model, bit by bit.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import json
import logging
import math
import os
import sys
import time
import warnings
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    from lightgbm import LGBMClassifier
    from lightgbm.callback import CallbackEnv
    from mlflow.entities import Metric
    from mlflow.models import Model, ModelSignature
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline

VALIDATION_SHARE = 0.15
ROWS_PER_CLASS = 20
PRINT_EVERY = 25
CURVES = {"auc": "validation_auc", "binary_logloss": "validation_log_loss"}
PACKAGES = ("lightgbm", "mlflow", "numpy", "pandas", "scikit-learn", "scipy", "skops")
TRUSTED = ["collections.OrderedDict", "lightgbm.basic.Booster", "lightgbm.sklearn.LGBMClassifier"]
"""The types that skops may restore from the model file, besides scikit-learn's own."""


class InputError(Exception):
    """The input cannot be used; the message names the place, the value and the remedy, on one line."""


@dataclass(frozen=True)
class ModelSpec:
    """What `model.yaml` declares: features in order and by kind, target, two classes, hyperparameters."""

    features: tuple[str, ...]
    numbers: tuple[str, ...]
    categories: tuple[str, ...]
    target: str
    classes: tuple[str, str]
    defaults: Mapping[str, int | float]


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Train once and return the exit code: 0, or 1 after one line on stderr about what could not be used."""
    started = time.perf_counter()
    configure_process()
    try:
        train(arguments, environment)
    except InputError as problem:
        print("train.py:", *str(problem).split(), file=sys.stderr, flush=True)  # on one line, whatever it quotes
        return 1
    print(f"trained in {time.perf_counter() - started:.1f} s", flush=True)
    return 0


def train(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Read, fit, save and log: the whole way, failing before the slow imports where it can."""
    spec = read_spec(Path(__file__).with_name("model.yaml"))
    parameters = hyperparameters(arguments, environment.get("SM_HPS", "{}"), spec.defaults)
    table, validating = read_rows(Path(environment.get("SM_CHANNEL_TRAIN", "data")), spec), 0
    if channel := environment.get("SM_CHANNEL_VALIDATION"):
        validation = read_rows(Path(channel), spec)
        table, validating = join_rows(table, validation), validation.num_rows
    tracked = TrainingRun.join(environment, parameters)
    frame, labels = features_and_labels(table, spec)
    del table
    example = frame.head(3).astype(dict.fromkeys(spec.categories, object))
    pipeline = fit(frame, labels, spec, parameters, tracked, validating)
    folder = Path(environment.get("SM_MODEL_DIR", "model"))
    missing = {name for name in spec.features if frame[name].isna().any()}
    save(pipeline, folder, example, spec, missing, tracked)
    tracked.finish(folder)


def read_spec(path: Path) -> ModelSpec:
    """Return what `model.yaml` says about columns, classes and default hyperparameters."""
    declared = yaml.safe_load(path.read_text(encoding="utf-8"))
    data, training = declared["data"], declared["training"]
    kinds: Mapping[str, str] = data["features"]
    if len(data["classes"]) != 2:
        raise InputError(f"{path.name}: data.classes has {data['classes']!r}; this program trains two classes")
    return ModelSpec(
        features=tuple(kinds),
        numbers=tuple(name for name, kind in kinds.items() if kind != "category"),
        categories=tuple(name for name, kind in kinds.items() if kind == "category"),
        target=data["target"],
        classes=tuple(data["classes"]),
        defaults={**training["parameters"], "seed": training["seed"], "threads": 2},
    )


def hyperparameters(arguments: Sequence[str], text: str, defaults: Mapping[str, int | float]) -> dict[str, int | float]:
    """Return the defaults, overlaid by the JSON object `text` and then by `--key value` arguments."""
    if len(arguments) % 2 or any(not key.startswith("--") for key in arguments[::2]):
        raise InputError(f"arguments {list(arguments)!r} are not pairs of --key value")
    try:
        given = dict(json.loads(text))
    except (ValueError, TypeError) as cause:
        raise InputError(f"SM_HPS is not a JSON object: {text[:80]!r}") from cause
    given |= {key[2:].replace("-", "_"): value for key, value in zip(*[iter(arguments)] * 2, strict=True)}
    own = {key: value for key, value in given.items() if not key.startswith(("_", "sagemaker_"))}
    return {**defaults, **{key: parsed(key, value, defaults) for key, value in own.items()}}


def parsed(key: str, value: object, defaults: Mapping[str, int | float]) -> int | float:
    """Return one hyperparameter as a finite number of its default's kind ("150", '"150"' and 150 are one)."""
    if key not in defaults:
        near = difflib.get_close_matches(key, defaults, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(defaults))}"
        raise InputError(f"hyperparameter {key!r} is unknown; {hint}")
    kind: type[int] | type[float] = type(defaults[key])
    try:
        number = kind(str(value).strip('"'))
    except ValueError as cause:
        raise InputError(f"hyperparameter {key!r} is {value!r}; give it as {kind.__name__}") from cause
    if not math.isfinite(number):
        raise InputError(f"hyperparameter {key!r} is {value!r}; give a finite number")
    return number


def read_rows(folder: Path, spec: ModelSpec) -> pa.Table:
    """Return the declared columns of the channel's Parquet files: numbers float64, texts dictionaries."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted(folder.rglob("*.parquet"))
    if not files:
        raise InputError(f"{folder}: no Parquet file there; SM_CHANNEL_TRAIN names the folder of training rows")
    texts = [*spec.categories, spec.target]
    parts = []
    for file in files:
        try:
            names = pq.read_schema(file).names
            if missing := [name for name in (*spec.features, spec.target) if name not in names]:
                raise InputError(f"{file.name}: no column {', '.join(missing)}; it has {', '.join(names)}")
            part = pq.read_table(file, columns=[*spec.features, spec.target], read_dictionary=texts)
        except (pa.ArrowException, OSError) as cause:
            raise InputError(f"{file.name}: not readable as Parquet: {cause}") from cause
        parts.append(cast_columns(part, spec, file.name))
    table = pa.concat_tables(parts)
    if table.num_rows == 0:
        raise InputError(f"{folder}: no rows in {len(files)} file(s); check the tier and the snapshot")
    return table.unify_dictionaries()


def join_rows(first: pa.Table, second: pa.Table) -> pa.Table:
    """Return the rows of both tables."""
    import pyarrow as pa

    return pa.concat_tables([first, second]).unify_dictionaries()


def cast_columns(table: pa.Table, spec: ModelSpec, file: str) -> pa.Table:
    """Return the table with numbers as float64 and texts as dictionaries; refuse what cannot be either."""
    import pyarrow as pa
    import pyarrow.compute as pc

    text = pa.dictionary(pa.int32(), pa.string())
    for position, name in enumerate((*spec.features, spec.target)):
        wanted = pa.float64() if name in spec.numbers else text
        column = table.column(name)
        try:
            column = column if column.type == wanted else column.cast(wanted)
        except pa.ArrowException as cause:
            said = str(cause).splitlines()[0]
            raise InputError(f"{file}: column {name!r} is {column.type}, not {wanted}: {said}") from cause
        if name in spec.numbers and (infinite := pc.sum(pc.is_inf(column)).as_py()):
            raise InputError(f"{file}: column {name!r} has {infinite} infinite values; quarantine those rows")
        table = table.set_column(position, name, column)
    return table


def features_and_labels(table: pa.Table, spec: ModelSpec) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the features as a frame and the target as class positions; refuse targets it cannot learn."""
    import numpy as np

    target = table.column(spec.target).to_pandas()
    counts = {name: int(count) for name, count in target.value_counts(dropna=False).items()}
    if foreign := [name for name, count in counts.items() if count and name not in spec.classes]:
        raise InputError(f"target {spec.target!r} holds {foreign!r}; model.yaml declares {list(spec.classes)!r}")
    for name in spec.classes:
        if counts.get(name, 0) < ROWS_PER_CLASS:
            raise InputError(
                f"target {spec.target!r} has {counts.get(name, 0)} rows of class {name!r} in {len(target)}; "
                f"at least {ROWS_PER_CLASS} are needed: use a larger tier"
            )
    labels = (target == spec.classes[1]).to_numpy().astype(np.int8)
    return table.select(list(spec.features)).to_pandas(), labels


def fit(
    frame: pd.DataFrame,
    labels: np.ndarray,
    spec: ModelSpec,
    parameters: Mapping[str, int | float],
    tracked: TrainingRun,
    validating: int = 0,
) -> Pipeline:
    """Fit, and follow the curve on the last `validating` rows, or on 15 % by chance; return the whole pipeline."""
    import lightgbm
    import numpy as np
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import Pipeline

    rows, held = np.split(np.arange(len(labels)), [len(labels) - validating])
    if not validating:
        rows, held = train_test_split(
            rows, test_size=VALIDATION_SHARE, random_state=int(parameters["seed"]), stratify=labels
        )
    prepare = preprocessing(frame, spec)
    values = prepare.fit_transform(frame)
    model = classifier(parameters)
    try:
        model.fit(
            values[rows],
            labels[rows],
            eval_set=[(values[held], labels[held])],
            eval_metric=list(CURVES),
            callbacks=[tracked.follow],
        )
    except lightgbm.basic.LightGBMError as cause:
        raise InputError(f"LightGBM refuses the hyperparameters {dict(parameters)!r}: {cause}") from cause
    return Pipeline([("prepare", prepare), ("model", model)])


def preprocessing(frame: pd.DataFrame, spec: ModelSpec) -> ColumnTransformer:
    """Return numbers as they are beside categories as their position; unknown and missing ones become -1.

    The categories are given, sorted, because an encoder that learns them tells None from NaN, and a request
    in JSON has the one where a data frame has the other.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import OrdinalEncoder

    known = [sorted(frame[name].cat.remove_unused_categories().cat.categories) for name in spec.categories]
    encoder = OrdinalEncoder(categories=known, handle_unknown="use_encoded_value", unknown_value=-1)
    return ColumnTransformer(
        [("numbers", "passthrough", list(spec.numbers)), ("categories", encoder, list(spec.categories))]
    )


def classifier(parameters: Mapping[str, int | float]) -> LGBMClassifier:
    """Return the untrained model; threads and row-wise histograms are fixed so that a seed decides all."""
    from lightgbm import LGBMClassifier

    given = {key: value for key, value in parameters.items() if key not in ("seed", "threads")}
    return LGBMClassifier(
        **given,
        random_state=int(parameters["seed"]),
        n_jobs=int(parameters["threads"]),
        subsample_freq=1,
        deterministic=True,
        force_row_wise=True,
        verbosity=-1,
    )


def save(
    pipeline: Pipeline, folder: Path, example: pd.DataFrame, spec: ModelSpec, missing: Set[str], tracked: TrainingRun
) -> None:
    """Write the model once, as an MLflow folder that answers with probabilities in the classes' order."""
    import mlflow.sklearn

    mlflow.sklearn.save_model(
        pipeline,
        path=str(folder),
        mlflow_model=tracked.model_record(),
        signature=signature(spec, missing),
        input_example=example,
        pip_requirements=[f"{package}=={importlib.metadata.version(package)}" for package in PACKAGES],
        pyfunc_predict_fn="predict_proba",
        serialization_format="skops",
        skops_trusted_types=TRUSTED,
        metadata={"classes": list(spec.classes), "target": spec.target},
    )


def signature(spec: ModelSpec, missing: Set[str]) -> ModelSignature:
    """Return the model's contract: numbers as doubles and texts; one that was missing in training may be missing."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec

    kinds = {name: DataType.double if name in spec.numbers else DataType.string for name in spec.features}
    answer = TensorSpec(np.dtype("float64"), (-1, len(spec.classes)))
    inputs = Schema([ColSpec(kind, name, required=name not in missing) for name, kind in kinds.items()])
    return ModelSignature(inputs=inputs, outputs=Schema([answer]))


class TrainingRun:
    """The MLflow run that this training belongs to, or none: then the curve is printed and not sent."""

    SEND_EVERY_SECONDS = 2.0

    def __init__(self, client: Any = None, run_id: str = "", experiment_id: str = "") -> None:
        self.client, self.run_id, self.experiment_id = client, run_id, experiment_id
        self.model_id, self.sent_at = "", time.monotonic()
        self.waiting: list[Metric] = []

    @classmethod
    def join(cls, environment: Mapping[str, str], parameters: Mapping[str, int | float]) -> TrainingRun:
        """Join the run that the environment names, log the hyperparameters; refuse a run that is not there."""
        uri, run_id = environment.get("MLFLOW_TRACKING_URI", ""), environment.get("MLFLOW_RUN_ID", "")
        if not (uri and run_id):
            return cls()
        from mlflow import MlflowClient
        from mlflow.entities import Param
        from mlflow.exceptions import MlflowException

        client = MlflowClient(uri)
        try:
            experiment_id = client.get_run(run_id).info.experiment_id
            client.log_batch(run_id, params=[Param(key, str(value)) for key, value in parameters.items()])
        except MlflowException as cause:
            said = str(cause).splitlines()[0]
            raise InputError(f"MLflow run {run_id!r} at {uri} cannot be joined: {said}") from cause
        return cls(client, run_id, experiment_id)

    def follow(self, env: CallbackEnv) -> None:
        """Take one iteration's scores: print some for the log, send them together every other second."""
        scores = {name: float(value) for _, name, value, *_ in env.evaluation_result_list}
        step, last = env.iteration + 1, env.iteration + 1 == env.end_iteration
        if step % PRINT_EVERY == 0 or last:
            auc, loss = scores["auc"], scores["binary_logloss"]
            print(f"iteration={step}; validation-auc={auc:.5f}; validation-log-loss={loss:.5f};", flush=True)
        if self.client:
            self._queue(scores, step)
            if last or time.monotonic() - self.sent_at > self.SEND_EVERY_SECONDS:
                self._send()

    def _queue(self, scores: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.waiting += [Metric(CURVES[name], value, now, step) for name, value in scores.items()]

    def _send(self) -> None:
        for start in range(0, len(self.waiting), 1000):  # what MLflow takes in one call
            self.client.log_batch(self.run_id, metrics=self.waiting[start : start + 1000])
        self.waiting, self.sent_at = [], time.monotonic()

    def model_record(self) -> Model | None:
        """Return MLflow's record of the model about to be saved, known to the server as `model`."""
        if not self.client:
            return None
        from mlflow.models import Model

        logged = self.client.create_logged_model(self.experiment_id, name="model", source_run_id=self.run_id)
        self.model_id = logged.model_id
        return Model(
            artifact_path=logged.artifact_location,
            run_id=self.run_id,
            model_id=logged.model_id,
            model_uuid=logged.model_id,
        )

    def finish(self, folder: Path) -> None:
        """Upload the saved folder as the run's model: the very files that are in `folder`, written once."""
        if not self.client:
            return
        from mlflow.entities import LoggedModelOutput

        self.client.log_model_artifacts(self.model_id, str(folder))
        self.client.finalize_logged_model(self.model_id, "READY")
        self.client.log_outputs(self.run_id, [LoggedModelOutput(self.model_id, step=0)])


def configure_process() -> None:
    """Keep the log for what this program says, and threads from spinning while they wait for each other."""
    warnings.filterwarnings("ignore", category=UserWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    for name in ("alembic", "sagemaker_mlflow", "mlflow.tracking.request_header.registry"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # 4 times faster where the cores are shared


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
