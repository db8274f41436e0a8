"""From an order to a model in memory that has given its golden answer, or a refusal with its reason."""

import threading
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, Queue

from blocks.endpoints.golden import difference
from runtime import admission, scoring
from runtime.digests import folder_digest
from services.model_server.state import Order


class Refused(Exception):
    """Nothing was changed, and why. `status` is for HTTP; `kind` names a class in `blocks.common.errors`."""

    def __init__(self, status: int, kind: str, problem: str) -> None:
        self.status, self.kind = status, kind
        super().__init__(problem)


def load(order: Order, folder: Path, seconds: float, keys: Sequence[str]) -> scoring.Model:
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
    artifact = _inside(order.artifact, folder)
    if (found := folder_digest(artifact)) != order.digest:
        problem = f"{artifact} has the digest {found}, not {order.digest}; the copy was changed or is another model"
        raise Refused(409, "Corrupt", problem)
    try:
        admission.admit(artifact, keys)
    except (admission.Unsigned, admission.Refused) as no:
        raise Refused(422, "Rejected", f"version {order.version} is not loaded: {no}") from no
    answers: Queue[scoring.Model | Exception] = Queue()
    threading.Thread(target=_work, args=(order, artifact, answers), daemon=True).start()
    try:
        outcome = answers.get(timeout=seconds)
    except Empty:
        problem = f"version {order.version} did not load and answer within {seconds:g} s"
        raise Refused(422, "Rejected", problem) from None
    if isinstance(outcome, Refused):
        raise outcome
    if isinstance(outcome, Exception):
        problem = f"version {order.version} does not load: {type(outcome).__name__}: {outcome}"
        raise Refused(422, "Rejected", problem) from outcome
    return outcome


def warm_up(order: Order, model: scoring.Model) -> None:
    """Put the golden request to a loaded model. Raises Refused when it answers otherwise."""
    reply = model.score(order.golden.request.encode(), "application/json")
    if found := difference(order.golden, reply.status, reply.body):
        raise Refused(422, "Rejected", f"version {order.version}: {found}")


def _work(order: Order, artifact: Path, answers: "Queue[scoring.Model | Exception]") -> None:
    try:
        model = scoring.load(artifact, order.version, digest=order.digest, own_code=False)
        warm_up(order, model)
        answers.put(model)
    except Exception as cause:
        answers.put(cause)
    except BaseException as cause:  # a model that calls sys.exit() must not pass for one that hangs
        answers.put(RuntimeError(f"it ended its thread with {type(cause).__name__}"))


def _inside(artifact: Path, folder: Path) -> Path:
    """Return the artifact's real path. A link that leads out of the state folder does not count as inside."""
    real, root = artifact.resolve(), folder.resolve()
    if root not in real.parents:
        raise Refused(400, "Rejected", f"artifact {artifact} is not below the state folder {root}")
    if not (real / "MLmodel").is_file():
        raise Refused(422, "Rejected", f"artifact {artifact} holds no file MLmodel; it is not an MLflow model")
    if link := next((path for path in real.rglob("*") if path.is_symlink()), None):
        raise Refused(400, "Rejected", f"artifact holds the link {link.name}; copy the file instead")
    return real
