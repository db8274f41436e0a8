"""Automations as code: what the Prefect server does by itself when something happens. Saved by each deployment."""

from collections.abc import Sequence
from datetime import timedelta

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, RunDeployment
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

SILENCE = timedelta(seconds=90)
"""How long a flow run may be silent, whose heartbeat is every 30 s, before it is taken for dead."""


UNBEGUN = timedelta(seconds=120)
"""How long a worker of this machine may take to begin a flow run it has claimed, before both are taken for dead."""


def automations() -> Sequence[AutomationCore]:
    """Return every automation; the deployments that they run must be there."""
    with get_client(sync_client=True) as client:
        notify = client.read_deployment_by_name("notify/notify").id
        answer = client.read_deployment_by_name("answer/answer").id
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
                    deployment_id=answer,
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
        AutomationCore(
            name="Ratchet: a flow run that fell silent has crashed",
            description="Its worker and its process are gone: nobody else would ever say so.",
            trigger=EventTrigger(
                after={"prefect.flow-run.heartbeat"},
                expect={"prefect.flow-run.*"},  # our runs end in states of many names: Deployed, Held, Suspended
                match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                threshold=1,
                within=SILENCE,
            ),
            actions=[
                ChangeFlowRunState(
                    name=None,
                    state=StateType.CRASHED,
                    force=False,
                    message=f"No heartbeat for {SILENCE.seconds} s: its process and its worker are gone.",
                )
            ],
        ),
        AutomationCore(
            name="Ratchet: a flow run that its worker never began has crashed",
            description="It would be pending for ever, and take one of the pool's places: four, and nothing runs.",
            trigger=EventTrigger(
                after={"prefect.flow-run.Pending", "prefect.flow-run.Submitting"},
                expect={"prefect.flow-run.*"},
                match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
                # Elsewhere an image may have to be fetched first, which takes minutes.
                match_related=ResourceSpecification(
                    {"prefect.resource.role": "work-pool", "prefect.resource.name": "local"}
                ),
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                threshold=1,
                within=UNBEGUN,
            ),
            # Not scheduled anew: a process that was only slow would then run beside another.
            actions=[
                ChangeFlowRunState(
                    name=None,
                    state=StateType.CRASHED,
                    force=False,
                    message=f"Nothing began it for {UNBEGUN.seconds} s: its worker is gone. Retry it.",
                )
            ],
        ),
    )


def save_automations() -> None:
    """Save every automation over the one of its name; one that somebody paused on the UI stays paused."""
    with get_client(sync_client=True) as client:
        for automation in automations():
            known = client.read_automations_by_name(automation.name)
            if known:
                client.update_automation(known[0].id, automation.model_copy(update={"enabled": known[0].enabled}))
            else:
                client.create_automation(automation)
