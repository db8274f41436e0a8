"""Automations as code: what the Prefect server does by itself when something happens. Saved by each deployment."""

from collections.abc import Sequence
from datetime import timedelta

from prefect.client.orchestration import get_client
from prefect.events.actions import RunDeployment
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

RETIRED_AUTOMATIONS = (
    "Ratchet: a flow run that fell silent has crashed",
    "Ratchet: a flow run that its worker never began has crashed",
)
"""What earlier versions saved; the worker does it better (`local.lost_runs`)."""


def build_automations() -> Sequence[AutomationCore]:
    """Return every automation; the deployments that they run must be there."""
    with get_client(sync_client=True) as client:
        notify = client.read_deployment_by_name("notify/notify").id
        auto_retrain = client.read_deployment_by_name("auto_retrain/auto-retrain").id
    return (
        AutomationCore(
            name="Ratchet: deliver alerts",
            description="Something happened to a model: deliver what the ledger's outbox holds.",
            trigger=EventTrigger(
                expect={"model.*", "release.*", "retraining.*"},
                match=ResourceSpecification({"prefect.resource.id": "ratchet.model.*"}),
                posture=Posture.Reactive,
                threshold=1,
                within=timedelta(0),
            ),
            actions=[
                RunDeployment(
                    source="selected",
                    deployment_id=notify,
                    job_variables=None,
                    parameters={"environment": "{{ event.resource['ratchet.environment'] }}"},
                )
            ],
        ),
        AutomationCore(
            name="Ratchet: answer what watching found",
            description="A model that is retrained by itself drifts, or is worse: ask its guards.",
            trigger=EventTrigger(
                expect={"model.drift.detected", "model.quality.degraded"},
                match=ResourceSpecification(
                    {"prefect.resource.id": "ratchet.model.*", "ratchet.retraining": "automatic"}
                ),
                posture=Posture.Reactive,
                threshold=1,
                within=timedelta(0),
            ),
            actions=[
                RunDeployment(
                    source="selected",
                    deployment_id=auto_retrain,
                    job_variables=None,
                    parameters={
                        "model": "{{ event.resource['prefect.resource.name'] }}",
                        "event": "{{ event.event }}",
                        "key": "{{ event.payload['key'] }}",
                        "environment": "{{ event.resource['ratchet.environment'] }}",
                    },
                )
            ],
        ),
    )


def save_automations() -> None:
    """Save every automation over the one of its name; one that somebody paused on the UI stays paused."""
    with get_client(sync_client=True) as client:
        for retired in (found for name in RETIRED_AUTOMATIONS for found in client.read_automations_by_name(name)):
            client.delete_automation(retired.id)
        for automation in build_automations():
            known = client.read_automations_by_name(automation.name)
            if known:
                client.update_automation(known[0].id, automation.model_copy(update={"enabled": known[0].enabled}))
            else:
                client.create_automation(automation)
