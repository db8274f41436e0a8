"""One MLflow model in memory: loads it, identifies it by the digest of its files, and scores requests."""

import io
import json
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import mlflow.pyfunc
import yaml
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.scoring_server import infer_and_parse_data, parse_csv_input
from mlflow.utils.proto_json_utils import NumpyEncoder, _get_jsonable_obj

from runtime.columns import BadInput, Column, shortened_repr
from runtime.digests import folder_digest
from runtime.payload import media_type, parse_json_object, parse_request
from runtime.signatures import NO_ROW_KEY, RowKey

CUSTOM_ATTRIBUTES_HEADER = "X-Amzn-SageMaker-Custom-Attributes"
_log = logging.getLogger("ratchet.scoring")


@dataclass(frozen=True)
class ScoringResponse:
    """An HTTP response: status, JSON body, headers. `error` is the message if the status is not 200.

    `sent_values` are the values that were scored, by column; empty for a model whose signature names no columns.
    """

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    sent_values: Mapping[str, Sequence[Any]] = field(default_factory=dict)


class UnservableModel(Exception):
    """The folder contains no model that may be served; the message gives the reason and the remedy."""


@dataclass(frozen=True)
class LoadedModel:
    """A loaded model. `columns` is None if its signature names no columns: then MLflow's own parser is used.

    `row_key` are the columns that identify a row, as the model's signer states them.
    """

    version: str
    digest: str
    load_seconds: float
    pyfunc: Any
    columns: tuple[Column, ...] | None
    row_key: RowKey = NO_ROW_KEY

    @property
    def headers(self) -> dict[str, str]:
        """The headers of every response of this model; SageMaker passes on only the last one."""
        named = f"version={self.version};digest={self.digest}"
        return {"X-Model-Version": self.version, "X-Model-Digest": self.digest, CUSTOM_ATTRIBUTES_HEADER: named}

    def score(self, body: bytes, content_type: str, entity_column: str = "") -> ScoringResponse:
        """Return 200 with `predictions`, 4xx for an error of the caller, or 500 for one of the model.

        The columns of `row_key` may be among those that are sent; the model gets them only if it has such columns.
        `entity_column` is that of a model that was signed before its signature named the row's key.
        """
        try:
            frame, params, given = self._read_input(body, content_type, entity_column)
            return ScoringResponse(200, _response_body(self._predict(frame, params)), self.headers, sent_values=given)
        except BadInput as refused:
            return self._error_response(refused.status, str(refused))
        except Exception as failure:
            _log.exception("model %s failed on a request", self.version)
            return self._error_response(500, f"the model failed on this input: {_first_line(failure)}")

    def _read_input(
        self, body: bytes, content_type: str, entity_column: str
    ) -> tuple[Any, dict[str, Any] | None, Mapping[str, Sequence[Any]]]:
        if self.columns is None:
            return *_parse_with_mlflow(body, content_type, self.pyfunc.metadata.get_input_schema()), {}
        row_key = self.row_key if self.row_key.columns else RowKey(entity_column)
        payload = parse_request(body, content_type, self.columns, row_key)
        return payload.frame, payload.params, payload.sent_values

    def _predict(self, data: Any, params: dict[str, Any] | None) -> Any:
        """Return the model's predictions. With a ValueError scikit-learn refuses a value, such as a new category."""
        if params and self.pyfunc.metadata.get_params_schema() is None:
            raise BadInput(f"the model takes no params; got {shortened_repr(sorted(params))}")
        try:
            return self.pyfunc.predict(data, params=params or None)
        except (MlflowException, ValueError) as cause:
            raise BadInput(f"the model refuses this input: {_first_line(cause)}") from cause

    def _error_response(self, status: int, problem: str) -> ScoringResponse:
        return ScoringResponse(status, json.dumps({"error": problem}).encode(), self.headers, problem)


def load_model(
    folder: Path,
    version: str = "",
    *,
    digest: str = "",
    allow_custom_code: bool = True,
    row_key: RowKey = NO_ROW_KEY,
    kinds: Mapping[str, str] = MappingProxyType({}),
) -> LoadedModel:
    """Load the MLflow model in `folder`. Call `admit_model` before, since loading runs the model's code.

    Args:
        folder: the folder with the file MLmodel.
        version: the version that responses name; empty: the model id in MLmodel.
        digest: the folder's digest if the caller has just computed it; empty: it is computed before loading.
        allow_custom_code: whether the model may bring modules of its own (`code_paths`). It must not if several models
            share a process: Python loads only the first of two modules of one name.
        row_key: the columns that identify a row, as `admit_model` returned them.
        kinds: the kinds of the columns (`runtime.values`), as the model's signature says.

    Raises:
        UnservableModel: there is no model, or it brings modules although it must not.
        Exception: any error of the model's own code.
    """
    sys.dont_write_bytecode = True  # compiled files beside a model's code would change its digest
    begin = time.perf_counter()
    described = _read_mlmodel(folder, allow_custom_code)
    digest = digest or folder_digest(folder)
    pyfunc = mlflow.pyfunc.load_model(str(folder))
    version = version or str(described.get("model_id") or described.get("model_uuid") or "unknown")
    columns = _signature_columns(pyfunc, kinds)
    return LoadedModel(version, digest, time.perf_counter() - begin, pyfunc, columns, row_key)


def _read_mlmodel(folder: Path, allow_custom_code: bool) -> dict[str, Any]:
    try:
        described = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
        flavor = described["flavors"]["python_function"]
    except FileNotFoundError:
        raise UnservableModel(f"{folder} holds no file MLmodel; it is not an MLflow model") from None
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as cause:
        raise UnservableModel(f"{folder}/MLmodel describes no Python model: {_first_line(cause)}") from cause
    if flavor.get("code") and not allow_custom_code:
        raise UnservableModel("the model brings modules of its own (code_paths); log it without them to serve it here")
    return dict(described)


def _signature_columns(pyfunc: Any, kinds: Mapping[str, str]) -> tuple[Column, ...] | None:
    schema = pyfunc.metadata.get_input_schema()
    if schema is None or schema.is_tensor_spec() or not schema.has_input_names():
        return None
    return tuple(
        Column(spec.name, getattr(spec.type, "name", str(spec.type)), spec.required, kinds.get(spec.name, ""))
        for spec in schema.inputs
    )


def _parse_with_mlflow(body: bytes, content_type: str, schema: Any) -> tuple[Any, dict[str, Any] | None]:
    """Read a request for a model without named columns, as MLflow does, but without its tracebacks."""
    kind = media_type(content_type)
    if not body.strip():
        raise BadInput("the body is empty; send rows as JSON or CSV")
    try:
        text = body.decode()
        if kind == "text/csv":
            return parse_csv_input(io.StringIO(text), schema), None
        document = parse_json_object(text)
        params = document.pop("params", None)
        return infer_and_parse_data(document, schema), params
    except (MlflowException, ValueError) as cause:
        raise BadInput(f"the body cannot be read: {_first_line(cause)}") from cause


def _response_body(predictions: Any) -> bytes:
    """Return the response's body. Raises ArithmeticError if a prediction is not finite."""
    plain = {"predictions": _get_jsonable_obj(predictions, pandas_orient="records")}
    try:
        return json.dumps(plain, cls=NumpyEncoder, allow_nan=False).encode()
    except ValueError as cause:
        raise ArithmeticError("it answered NaN or infinity") from cause


def _first_line(problem: BaseException) -> str:
    text = str(problem).strip().splitlines() or [""]
    return f"{type(problem).__name__}: {text[0][:300]}"
