"""Effects in a SQL database. A unique column decides which of two writers is first; the other one reads its row."""

from datetime import datetime

from sqlalchemy import select

from blocks.database.engine import Database, recorded
from blocks.database.tables import COMPARISONS, DEPLOYMENTS, EFFECTS
from blocks.effects.base import Effect, Effects, unknown_effect_error
from blocks.records.comparisons import Comparison
from blocks.records.deployments import Deployment


class SqlEffects(Effects):
    """Effects, deployments and comparisons as rows; any number of processes may add rows at the same time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def intend(self, key: str, detail: str, at: datetime) -> Effect:
        """Record an effect before it is done, or return the one with that key."""
        self._database.add(EFFECTS, {"key": key, "state": "intent", "text": detail, "at": at})
        return recorded(self.effect(key), f"effect {key!r}")

    def finish(self, key: str, outcome: str, at: datetime) -> Effect:
        """Record that the effect is done; the first outcome stays."""
        if self.effect(key) is None:
            raise unknown_effect_error(key)
        self._database.add(EFFECTS, {"key": key, "state": "done", "text": outcome, "at": at})
        return recorded(self.effect(key), f"effect {key!r}")

    def effect(self, key: str) -> Effect | None:
        """Return the effect under the key, or None."""
        rows = {row["state"]: row for row in self._database.rows(select(EFFECTS).where(EFFECTS.c.key == key))}
        if (intent := rows.get("intent")) is None:
            return None
        if (done := rows.get("done")) is None:
            return Effect(key, "intent", intent["text"], "", intent["at"])
        return Effect(key, "done", intent["text"], done["text"], done["at"])

    def unfinished(self, prefix: str) -> tuple[Effect, ...]:
        """Return the effects that were intended and not finished, of keys that begin with `prefix`, oldest first."""
        column = EFFECTS.c
        done = select(column.key).where(column.state == "done", column.key.startswith(prefix, autoescape=True))
        begun = select(EFFECTS).where(column.state == "intent", column.key.startswith(prefix, autoescape=True))
        rows = self._database.rows(begun.where(column.key.not_in(done)).order_by(column.sequence))
        return tuple(Effect(row["key"], "intent", row["text"], "", row["at"]) for row in rows)

    def record_deployment(self, deployment: Deployment) -> Deployment:
        """Add a deployment, or return the one with its id."""
        return self._database.add_record(DEPLOYMENTS, deployment, "id")

    def deployments(self, model: str, environment: str) -> tuple[Deployment, ...]:
        """Return the deployments of a model in an environment, newest first."""
        column = DEPLOYMENTS.c
        of_model = select(DEPLOYMENTS).where(column.model == model, column.environment == environment)
        return self._database.records(Deployment, of_model.order_by(column.sequence.desc()))

    def model_names(self, environment: str) -> tuple[str, ...]:
        """Return the models with a deployment in an environment, failed ones included, sorted."""
        named = select(DEPLOYMENTS.c.model).where(DEPLOYMENTS.c.environment == environment).distinct()
        return tuple(sorted(str(row["model"]) for row in self._database.rows(named)))

    def record_comparison(self, comparison: Comparison) -> Comparison:
        """Add a comparison, or return the one with its number."""
        return self._database.add_record(COMPARISONS, comparison, "environment", "model", "number")

    def comparisons(self, model: str, environment: str) -> tuple[Comparison, ...]:
        """Return the comparisons of a model in an environment, in the order of their numbers."""
        column = COMPARISONS.c
        of_model = select(COMPARISONS).where(column.environment == environment, column.model == model)
        return self._database.records(Comparison, of_model.order_by(column.number))
