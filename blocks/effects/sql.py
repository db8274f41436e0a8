"""Effects in a SQL database. A unique column decides which of two writers is first; the other one reads its row."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from blocks.database.engine import Database, Rows, add_record, recorded
from blocks.database.tables import COMPARISONS, DEPLOYMENTS, EFFECTS
from blocks.effects.base import Effect, Effects, unknown_effect_error
from blocks.records.comparisons import Comparison
from blocks.records.deployments import Deployment


class SqlEffects(Effects):
    """Effects, deployments and comparisons as rows; any number of processes may add rows at the same time."""

    def __init__(self, database: Database, rows: Rows | None = None) -> None:
        """`rows` seals and verifies the rows; without it they are read and written as they stand."""
        self._database, self._rows = database, rows or database

    def intend(self, key: str, detail: str, at: datetime) -> Effect:
        """Record an effect before it is done, or return the one with that key."""
        self._rows.add(EFFECTS, {"key": key, "state": "intent", "text": detail, "at": at})
        return recorded(self.effect(key), f"effect {key!r}")

    def finish(self, key: str, outcome: str, at: datetime) -> Effect:
        """Record that the effect is done; the first outcome stays."""
        if self.effect(key) is None:
            raise unknown_effect_error(key)
        self._rows.add(EFFECTS, {"key": key, "state": "done", "text": outcome, "at": at})
        return recorded(self.effect(key), f"effect {key!r}")

    def effect(self, key: str) -> Effect | None:
        """Return the effect under the key, or None."""
        return _effect(self._rows.find(EFFECTS, key=key))

    def unfinished(self, prefix: str) -> tuple[Effect, ...]:
        """Return the effects that were intended and not finished, of keys that begin with `prefix`, oldest first."""
        rows: dict[str, list[dict[str, Any]]] = {}
        for row in self._rows.find(EFFECTS):
            rows.setdefault(row["key"], []).append(row)
        effects = (_effect(each) for key, each in rows.items() if key.startswith(prefix))
        return tuple(effect for effect in effects if effect and effect.state == "intent")

    def record_deployment(self, deployment: Deployment) -> Deployment:
        """Add a deployment, or return the one with its id."""
        return add_record(self._rows, DEPLOYMENTS, deployment, "id")

    def deployments(self, model: str, environment: str) -> tuple[Deployment, ...]:
        """Return the deployments of a model in an environment, newest first."""
        rows = self._rows.find(DEPLOYMENTS, model=model, environment=environment)
        return tuple(Deployment(**row) for row in reversed(rows))

    def model_names(self, environment: str) -> tuple[str, ...]:
        """Return the models with a deployment in an environment, failed ones included, sorted."""
        rows = self._rows.find(DEPLOYMENTS, environment=environment)
        return tuple(sorted({row["model"] for row in rows}))

    def record_comparison(self, comparison: Comparison) -> Comparison:
        """Add a comparison, or return the one with its number."""
        return add_record(self._rows, COMPARISONS, comparison, "environment", "model", "number")

    def comparisons(self, model: str, environment: str) -> tuple[Comparison, ...]:
        """Return the comparisons of a model in an environment, in the order of their numbers."""
        rows = self._rows.find(COMPARISONS, environment=environment, model=model)
        return tuple(sorted((Comparison(**row) for row in rows), key=lambda each: each.number))


def _effect(rows: Sequence[Mapping[str, Any]]) -> Effect | None:
    """Return the effect of the rows of one key, or None."""
    by_state = {row["state"]: row for row in rows}
    if (intent := by_state.get("intent")) is None:
        return None
    if (done := by_state.get("done")) is None:
        return Effect(intent["key"], "intent", intent["text"], "", intent["at"])
    return Effect(intent["key"], "done", intent["text"], done["text"], done["at"])
