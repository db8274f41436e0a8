"""Effects in memory, for tests: the same rules as in the database, and faults on demand."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from threading import Lock

from blocks.database.common import FailingWrites, to_utc
from blocks.effects.base import Effect, Effects, unknown_effect_error
from blocks.records.comparisons import Comparison
from blocks.records.deployments import Deployment


@dataclass
class FakeEffects(FailingWrites, Effects):
    """Effects, deployments and comparisons that exist as long as the object."""

    _effects: dict[str, Effect] = field(default_factory=dict, init=False)
    _deployments: dict[str, Deployment] = field(default_factory=dict, init=False)
    _comparisons: dict[tuple[str, str, int], Comparison] = field(default_factory=dict, init=False)
    _lock: Lock = field(default_factory=Lock, init=False)

    def intend(self, key: str, detail: str, at: datetime) -> Effect:
        """Record an effect before it is done, or return the one with that key."""
        with self._lock:
            self.may_write()
            return self._effects.setdefault(key, Effect(key, "intent", detail, "", to_utc(at)))

    def finish(self, key: str, outcome: str, at: datetime) -> Effect:
        """Record that the effect is done; the first outcome stays."""
        with self._lock:
            self.may_write()
            if (effect := self._effects.get(key)) is None:
                raise unknown_effect_error(key)
            if effect.state == "intent":
                self._effects[key] = replace(effect, state="done", outcome=outcome, at=to_utc(at))
            return self._effects[key]

    def effect(self, key: str) -> Effect | None:
        """Return the effect under the key, or None."""
        return self._effects.get(key)

    def unfinished(self, prefix: str) -> tuple[Effect, ...]:
        """Return the effects that were intended and not finished, of keys that begin with `prefix`, oldest first."""
        found = list(self._effects.values())
        return tuple(each for each in found if each.state == "intent" and each.key.startswith(prefix))

    def record_deployment(self, deployment: Deployment) -> Deployment:
        """Add a deployment, or return the one with its id."""
        with self._lock:
            self.may_write()
            given = replace(deployment, at=to_utc(deployment.at))
            return self._deployments.setdefault(deployment.id, given)

    def deployments(self, model: str, environment: str) -> tuple[Deployment, ...]:
        """Return the deployments of a model in an environment, newest first."""
        newest_first = reversed(list(self._deployments.values()))
        return tuple(each for each in newest_first if (each.model, each.environment) == (model, environment))

    def model_names(self, environment: str) -> tuple[str, ...]:
        """Return the models with a deployment in an environment, failed ones included, sorted."""
        here = (each for each in list(self._deployments.values()) if each.environment == environment)
        return tuple(sorted({each.model for each in here}))

    def record_comparison(self, comparison: Comparison) -> Comparison:
        """Add a comparison, or return the one with its number."""
        with self._lock:
            self.may_write()
            given = replace(comparison, at=to_utc(comparison.at))
            return self._comparisons.setdefault((given.environment, given.model, given.number), given)

    def comparisons(self, model: str, environment: str) -> tuple[Comparison, ...]:
        """Return the comparisons of a model in an environment, in the order of their numbers."""
        here = [
            each for each in list(self._comparisons.values()) if (each.model, each.environment) == (model, environment)
        ]
        return tuple(sorted(here, key=lambda each: each.number))
