"""From an order to a model in memory that has given its golden answer, or a refusal with its reason."""

import threading
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, Queue

from blocks.endpoints.golden import difference
from runtime import admission, scoring
from runtime.digests import folder_digest
from services.model_server.state import ReleaseRequest


class ReleaseRefused(Exception):
    """Nothing was changed, and why. `status` is for HTTP; `error_class` names a class in `blocks.common.errors`."""

    def __init__(self, status: int, kind: str, problem: str) -> None:
        self.status, self.error_class = status, kind
        super().__init__(problem)


def load_release(order: ReleaseRequest, folder: Path, seconds: float, keys: Sequence[str]) -> scoring.LoadedModel:
    """Load the ordered version and put the golden request to it.

    Args:
        order: what to load.
        folder: the host's state folder; the artifact must be inside it.
        seconds: how long loading and the first answer may take. What hangs for longer is left to itself
            in its thread, and whatever it makes later is thrown away.
        keys: the public keys whose models are loaded.

    Raises:
        Refused: the artifact is elsewhere, has another digest, is not signed by a pinned key or of what is not
            allowed, does not load, or answers otherwise.
    """
    artifact = _artifact_path(order.artifact, folder)
    if (found := folder_digest(artifact)) != order.digest:
        problem = f"{artifact} has the digest {found}, not {order.digest}; the copy was changed or is another model"
        raise ReleaseRefused(409, "Corrupt", problem)
    try:
        admission.admit_model(artifact, keys)
    except (admission.UntrustedSignature, admission.UnsafeModel) as no:
        raise ReleaseRefused(422, "Rejected", f"version {order.version} is not loaded: {no}") from no
    answers: Queue[scoring.LoadedModel | Exception] = Queue()
    threading.Thread(target=_load_in_thread, args=(order, artifact, answers), daemon=True).start()
    try:
        outcome = answers.get(timeout=seconds)
    except Empty:
        problem = f"version {order.version} did not load and answer within {seconds:g} s"
        raise ReleaseRefused(422, "Rejected", problem) from None
    if isinstance(outcome, ReleaseRefused):
        raise outcome
    if isinstance(outcome, Exception):
        problem = f"version {order.version} does not load: {type(outcome).__name__}: {outcome}"
        raise ReleaseRefused(422, "Rejected", problem) from outcome
    return outcome


def check_golden_request(order: ReleaseRequest, model: scoring.LoadedModel) -> None:
    """Put the golden request to a loaded model. Raises Refused when it answers otherwise."""
    reply = model.score(order.golden.request.encode(), "application/json")
    if found := difference(order.golden, reply.status, reply.body):
        raise ReleaseRefused(422, "Rejected", f"version {order.version}: {found}")


def _load_in_thread(order: ReleaseRequest, artifact: Path, answers: "Queue[scoring.LoadedModel | Exception]") -> None:
    try:
        model = scoring.load_model(artifact, order.version, digest=order.digest, own_code=False)
        check_golden_request(order, model)
        answers.put(model)
    except Exception as cause:
        answers.put(cause)
    except BaseException as cause:  # a model that calls sys.exit() must not pass for one that hangs
        answers.put(RuntimeError(f"it ended its thread with {type(cause).__name__}"))


def _artifact_path(artifact: Path, folder: Path) -> Path:
    """Return the artifact's real path. A link that leads out of the state folder does not count as inside."""
    real, root = artifact.resolve(), folder.resolve()
    if root not in real.parents:
        raise ReleaseRefused(400, "Rejected", f"artifact {artifact} is not below the state folder {root}")
    if not (real / "MLmodel").is_file():
        raise ReleaseRefused(422, "Rejected", f"artifact {artifact} holds no file MLmodel; it is not an MLflow model")
    if link := next((path for path in real.rglob("*") if path.is_symlink()), None):
        raise ReleaseRefused(400, "Rejected", f"artifact holds the link {link.name}; copy the file instead")
    return real
