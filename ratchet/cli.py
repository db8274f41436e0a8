"""The command-line program: all commands, in groups."""

from ratchet.commands.gateway import accounts, gateway
from ratchet.commands.machines import ci, sagemaker
from ratchet.commands.models import runs
from ratchet.commands.records import alerts, approvals, audit, evidence
from ratchet.commands.stack import environment, top

GROUPS = {
    "approvals": approvals, "alerts": alerts, "audit": audit, "evidence": evidence, "runs": runs,
    "gateway": gateway, "accounts": accounts, "ci": ci, "sagemaker": sagemaker, "environment": environment,
}  # fmt: skip
app = top
for _name, _group in GROUPS.items():
    app.add_typer(_group, name=_name)
