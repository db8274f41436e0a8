"""Load a released model and check its response to the golden request."""

import threading
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, Queue

from blocks.endpoints.golden import difference
from runtime import admission, scoring
from runtime.digests import folder_digest
from runtime.signatures import SignedStatement
from services.model_server.state import ReleaseRequest


class ReleaseRefused(Exception):
    """The release is refused and nothing was changed.

    `status` is the HTTP status; `error_class` names a class in `blocks.common.errors`.
    """

    def __init__(self, status: int, kind: str, problem: str) -> None:
        self.status, self.error_class = status, kind
        super().__init__(problem)


def load_release(order: ReleaseRequest, folder: Path, seconds: float, keys: Sequence[str]) -> scoring.LoadedModel:
    """Load the requested version and send the golden request to it.

    Args:
        order: what to load.
        folder: the server's state folder; the artifact must be inside it.
        seconds: for loading and the first response. A load that hangs is abandoned in its thread and its result is
            discarded.
        keys: the public keys whose models are loaded.

    Raises:
        ReleaseRefused: the artifact is outside the folder, has another digest, is not signed by a trusted key,
            contains something that is not allowed, does not load, or gives another response.
    """
    artifact = _artifact_path(order.artifact, folder)
    if (digest := folder_digest(artifact)) != order.digest:
        problem = f"{artifact} has the digest {digest}, not {order.digest}; the copy was changed or is another model"
        raise ReleaseRefused(409, "Corrupt", problem)
    try:
        statement = admission.admit_model(artifact, keys)
    except (admission.UntrustedSignature, admission.UnsafeModel) as no:
        raise ReleaseRefused(422, "Rejected", f"version {order.version} is not loaded: {no}") from no
    answers: Queue[scoring.LoadedModel | Exception] = Queue()
    threading.Thread(target=_load_in_thread, args=(order, artifact, statement, answers), daemon=True).start()
    try:
        outcome = answers.get(timeout=seconds)
    except Empty:
        problem = f"version {order.version} did not load and respond within {seconds:g} s"
        raise ReleaseRefused(422, "Rejected", problem) from None
    if isinstance(outcome, ReleaseRefused):
        raise outcome
    if isinstance(outcome, Exception):
        problem = f"version {order.version} does not load: {type(outcome).__name__}: {outcome}"
        raise ReleaseRefused(422, "Rejected", problem) from outcome
    return outcome


def check_golden_request(order: ReleaseRequest, model: scoring.LoadedModel) -> None:
    """Send the golden request to a loaded model. Raises ReleaseRefused when the response differs."""
    response = model.score(order.golden.request.encode(), "application/json")
    if problem := difference(order.golden, response.status, response.body):
        raise ReleaseRefused(422, "Rejected", f"version {order.version}: {problem}")


def _load_in_thread(
    order: ReleaseRequest,
    artifact: Path,
    statement: SignedStatement,
    answers: "Queue[scoring.LoadedModel | Exception]",
) -> None:
    try:
        model = scoring.load_model(
            artifact,
            order.version,
            digest=order.digest,
            allow_custom_code=False,
            row_key=statement.row_key,
            kinds=statement.permissions.kinds,
        )
        check_golden_request(order, model)
        answers.put(model)
    except Exception as cause:
        answers.put(cause)
    except BaseException as cause:  # a model that calls sys.exit() must not look like one that hangs
        answers.put(RuntimeError(f"it ended its thread with {type(cause).__name__}"))


def _artifact_path(artifact: Path, folder: Path) -> Path:
    """Return the artifact's real path. A link to a place outside the state folder is refused."""
    try:
        real, root = artifact.resolve(), folder.resolve()
        is_model = (real / "MLmodel").is_file()
    except (OSError, ValueError) as cause:  # too long, or with a zero byte
        raise ReleaseRefused(422, "Rejected", f"artifact {str(artifact)[:200]!r} is no path: {cause}") from cause
    if root not in real.parents:
        raise ReleaseRefused(400, "Rejected", f"artifact {artifact} is not inside the state folder {root}")
    if not is_model:
        raise ReleaseRefused(422, "Rejected", f"artifact {artifact} has no file MLmodel; it is not an MLflow model")
    if link := next((path for path in real.rglob("*") if path.is_symlink()), None):
        raise ReleaseRefused(400, "Rejected", f"the artifact contains the link {link.name}; copy the file instead")
    return real
