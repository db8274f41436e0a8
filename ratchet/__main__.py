"""`python -m ratchet COMMAND`; `python -m ratchet --help` lists the commands."""

from ratchet.commands.approvals import alerts, approvals
from ratchet.commands.audit import audit, evidence
from ratchet.commands.gateway import accounts, gateway
from ratchet.commands.machines import ci, sagemaker
from ratchet.commands.models import app
from ratchet.commands.runs import runs
from ratchet.commands.stack import environment, trust

GROUPS = {
    "approvals": approvals, "alerts": alerts, "audit": audit, "evidence": evidence, "runs": runs,
    "gateway": gateway, "accounts": accounts, "ci": ci, "sagemaker": sagemaker, "environment": environment,
    "trust": trust,
}  # fmt: skip
for _name, _group in GROUPS.items():
    app.add_typer(_group, name=_name)

if __name__ == "__main__":
    app(prog_name="python -m ratchet")
