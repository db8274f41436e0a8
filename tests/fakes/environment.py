"""An environment of fakes for tests of tasks: lake, tracking, endpoint and ledger in memory."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from prefect.blocks.core import Block
from pydantic import PrivateAttr

from blocks.database.fake import FakeLedger
from blocks.endpoints.fake import FakeEndpoint
from blocks.environment import Environment
from blocks.lake.fake import FakeLake
from blocks.records.approvals import ApprovalRequest, Decision
from blocks.records.deployments import Deployment
from blocks.records.tracking import ModelVersion
from blocks.tracking.fake import FakeTracking
from blocks.trainers.fake import FakeTrainer
from tasks.approval.rules.evidence import Evidence, ExpectationCounts, canonical_json, evidence_digest
from tasks.shared.rules.model.spec import parse_spec
from tests.fixtures.signing_keys import signing_in
from tests.fixtures.sources import ANYWHERE
from tests.fixtures.spec_cases import BINARY

SPEC = parse_spec(BINARY, "models/price/model.yaml")


NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
"""The current time in tests of tasks, which pass it to the functions under test."""


class World(Environment):
    """An environment that holds its adapters directly, instead of blocks on a Prefect server."""

    _block_type_name = "Ratchet environment in memory"
    _block_type_slug = "ratchet-environment-in-memory"
    _adapters: dict[str, Block] = PrivateAttr(default_factory=dict)

    @classmethod
    def at(cls, folder: Path, **knobs: Any) -> "World":
        """Return an environment with its files below `folder`; `knobs` are those of the endpoint."""
        names = {f"{port}_adapter": port for port in ("lake", "trainer", "endpoint", "tracking", "ledger")}
        env = cls(name="local", scratch=folder / "scratch", sources=ANYWHERE, signing=signing_in(folder), **names)
        env._adapters = {
            "lake": FakeLake(),
            "trainer": FakeTrainer(root=folder / "jobs", polls_in_progress=0),
            "endpoint": FakeEndpoint(**knobs),
            "tracking": FakeTracking(root=folder / "runs").timed(lambda: NOW),
            "ledger": FakeLedger(),
        }
        return env

    def adapters(self) -> Iterator[Block]:
        return iter(self._adapters.values())

    def _adapter(self, path: str) -> Block:
        return self._adapters[path]


def register(env: World, weights: dict[str, float], holdout: float = SPEC.holdout) -> ModelVersion:
    """Register a model with these weights as the next version of `price`, without training."""
    tracking: Any = env.tracking()
    key = json.dumps(weights)
    run = tracking.open_run(SPEC.name, key=key, name="test")
    tracking.log_model(run.id, weights)
    version: ModelVersion = tracking.register(SPEC.name, run.id, key=key, tags={"ratchet.holdout": str(holdout)})
    return version


def artifact_of(env: World, version: str) -> Path:
    """Return the artifact of a version as the evaluation fetched it."""
    return env.tracking().fetch_model(SPEC.name, version, env.scratch / "models" / SPEC.name / version)


def approve(env: World, version: str, digest: str, name: str = SPEC.name) -> ApprovalRequest:
    """Record an approval request over what the registry says about a version, and that it was approved."""
    found = env.tracking().version(name, version)
    tags = found.tags if found else {}
    shown = Evidence(
        model=name, environment=env.name, version=version, model_digest=digest,
        commit=tags.get("ratchet.commit", "c" * 40), patch_digest="", tier=tags.get("ratchet.tier", "full"),
        as_of=tags.get("ratchet.snapshot", "00000001-aaaaaaaa"), data_digest=tags.get("ratchet.data_digest", "d" * 64),
        holdout_digest="h" * 64, parameters={}, seed=7, expectations=ExpectationCounts(1, 0), metrics={"auc": 0.85},
        champion_version="", champion_metrics={}, verdict="pass", reasons=("it passes its floors",), cost_usd=None,
        holdout_rule=tags.get("ratchet.holdout"), cut_off=tags.get("ratchet.cut_off"),
        trained_until=tags.get("ratchet.trained_until"),
    )  # fmt: skip
    request = env.approvals().add_request(
        ApprovalRequest(
            f"{name}-{version}", name, env.name, version, evidence_digest(shown), canonical_json(shown),
            "dana@example.com", NOW - timedelta(hours=1), NOW + timedelta(days=1), "",
        )
    )  # fmt: skip
    decision = Decision(request.id, request.digest, True, "max@example.com", "it is better", "terminal", NOW)
    env.approvals().record_decision(decision, env.signing.signer("decisions"))
    return request


def release(
    env: World, version: str, digest: str, status: Literal["serving", "failed"] = "serving", minutes: int = 0
) -> Deployment:
    """Record in the ledger that a version was approved and deployed, with the approved digest."""
    approve(env, version, digest)
    line = Deployment(
        f"deploy:{SPEC.name}-{version}:{status}", SPEC.name, env.name, version, digest, "deploy", status,
        "max@example.com", "it is better", f"{SPEC.name}-{version}", NOW + timedelta(minutes=minutes),
    )  # fmt: skip
    return env.effects().record_deployment(line)
