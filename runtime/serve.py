"""The scoring server of SageMaker's container contract: one MLflow model on `/ping` and `/invocations`.

    SM_MODEL_DIR=model SAGEMAKER_BIND_TO_PORT=8080 python runtime/serve.py

| variable                | meaning                                            | default        |
|-------------------------|----------------------------------------------------|----------------|
| SM_MODEL_DIR            | the MLflow model folder, or the folder above `model` | /opt/ml/model |
| SAGEMAKER_BIND_TO_PORT  | port                                               | 8080           |
| RATCHET_BIND_HOST       | address                                            | 0.0.0.0        |
| RATCHET_MODEL_VERSION   | value of `X-Model-Version`                         | id in MLmodel  |
| RATCHET_TRUSTED_KEYS    | public keys whose models are loaded                | none: no model |
| RATCHET_SIGNATURE       | the model's signature                              | SM_MODEL_DIR.sig |
| RATCHET_UNSIGNED        | `allow`: unsigned models are loaded                | refuse         |
| RATCHET_MODEL_DIGEST    | the digest that the folder must have               | any            |
| RATCHET_MODEL_CODE      | `refuse`: models that bring modules are not loaded | allow          |
| RATCHET_ENTITY_COLUMN   | the entity's column, if the signature names none   | none           |
| RATCHET_STOP_WITH_STDIN | `1`: end when standard input closes (the parent died) | off         |

It imports only its siblings from the project, so that an image needs only the folder `runtime`.
"""

import logging
import os
import platform
import sys
import threading
from importlib.metadata import version as installed
from pathlib import Path

if not __package__:  # started by its path: the package `runtime` is found one folder up
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from runtime import scoring
from runtime.admission import admit_model, pinned_keys
from runtime.digests import folder_digest
from runtime.foreign_pages import ForeignPageGuard
from runtime.foreign_text import log_visible_text
from runtime.web import add_json_error_handlers, json_response, read_body


def create_app(model: scoring.LoadedModel, entity_column: str = "") -> FastAPI:
    """Return the server of one loaded model; `entity_column` is as in `LoadedModel.score`."""
    app = FastAPI(title="Ratchet scoring server", docs_url=None, redoc_url=None)
    add_json_error_handlers(app)

    @app.get("/ping")
    async def ping() -> Response:
        return Response("\n", 200, model.headers, "application/json")

    @app.get("/version")
    async def version() -> dict[str, str]:
        return {
            "version": model.version,
            "digest": model.digest,
            "mlflow": installed("mlflow"),
            "python": platform.python_version(),
        }

    @app.post("/invocations")
    async def invocations(request: Request) -> Response:
        body = await read_body(request)
        content_type = request.headers.get("content-type", "")
        return json_response(await run_in_threadpool(model.score, body, content_type, entity_column))

    return app


def main() -> int:
    """Load the model and serve it until a signal; return 1 if it does not load (the last log line gives the reason)."""
    log_visible_text()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if os.environ.get("RATCHET_STOP_WITH_STDIN") == "1":
        threading.Thread(target=_exit_when_stdin_closes, daemon=True).start()
    folder = _model_folder(Path(os.environ.get("SM_MODEL_DIR", "/opt/ml/model")))
    allow_custom_code = os.environ.get("RATCHET_MODEL_CODE", "allow") != "refuse"
    signature = os.environ.get("RATCHET_SIGNATURE")
    try:
        digest = _check_digest(folder, os.environ.get("RATCHET_MODEL_DIGEST", ""))
        statement = admit_model(folder, pinned_keys(os.environ), Path(signature) if signature else None)
        model = scoring.load_model(
            folder,
            os.environ.get("RATCHET_MODEL_VERSION", ""),
            digest=digest,
            allow_custom_code=allow_custom_code,
            row_key=statement.row_key,
            kinds=statement.permissions.kinds,
        )
    except Exception as cause:
        logging.exception("the model in %s does not load", folder)
        logging.error("not serving: %s: %s", type(cause).__name__, cause)
        return 1
    logging.info("model %s loaded in %.2f s", model.version, model.load_seconds)
    host = os.environ.get("RATCHET_BIND_HOST", "0.0.0.0")  # noqa: S104 - a container is reached from outside
    port = int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080"))
    app = create_app(model, os.environ.get("RATCHET_ENTITY_COLUMN", ""))
    uvicorn.run(
        ForeignPageGuard(app) if host in ("127.0.0.1", "localhost", "::1") else app,  # no browser reaches a container
        host=host,
        proxy_headers=False,
        port=port,
        access_log=False,
        log_level="warning",
    )
    return 0


def _model_folder(given: Path) -> Path:
    """Return the folder, or `model` in it: SageMaker copies a release as the model with its signature beside it."""
    inner = given / "model"
    return inner if not (given / "MLmodel").exists() and (inner / "MLmodel").exists() else given


def _check_digest(folder: Path, digest: str) -> str:
    """Return the folder's digest, before any code of the model runs. Raises UnservableModel if another is expected."""
    if digest and (found := folder_digest(folder)) != digest:
        raise scoring.UnservableModel(
            f"{folder} has the digest {found}, expected {digest}: it is not what was approved"
        )
    return digest


def _exit_when_stdin_closes() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
