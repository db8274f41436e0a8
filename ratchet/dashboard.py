"""The page about a model, drawn now; looks, deployments and rollbacks draw it by themselves."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from ratchet.running import running
from tasks.dashboard.drawing import write_dashboard
from tasks.shared.namespaces import known_models


def pages(models: Sequence[str], environment: str) -> Iterator[str]:
    """Draw the page of each model, or of all there are, and yield where it is."""
    env = running(environment)
    for model in models or known_models(env):
        drawn = write_dashboard(env, model, datetime.now(UTC))
        yield f"{drawn.headline}\n  {drawn.url or 'not served in this environment'}\n  {drawn.path}"
