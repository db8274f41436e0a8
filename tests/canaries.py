"""Secrets that nobody else could have made up: where one of them is found, a secret of a user would have been."""

import base64
from uuid import uuid4


def _canary(of: str) -> str:
    return f"canary-{of}-{uuid4().hex}"


IN_ENVIRONMENT = {
    "AWS_SECRET_ACCESS_KEY": _canary("aws"),
    "RATCHET_GITHUB_SECRET": _canary("webhook"),
    "TEAM_VARIABLE": _canary("variable"),
}
"""What the stack's processes have in their environment: of the cloud, of the gateway, of the team's own."""

DATABASE, MISSPELT = _canary("database"), _canary("misspelt")
"""Passwords in addresses that Secret blocks hold: of a database that is not there, and where it is no address."""

PARAMETER = _canary("parameter")
"""A password that somebody gave in a parameter after all: Prefect has it then, and nothing else may."""

ADDRESS, CHAT, MAIL = _canary("address"), _canary("chat"), _canary("mail")
"""Of alerts: a webhook's address, a chat's token, a mail server's password."""

SIGNING = "whsec_" + base64.b64encode(_canary("signing").encode()).decode()
"""The signing secret of a webhook."""

ALL = (*IN_ENVIRONMENT.values(), DATABASE, MISSPELT, ADDRESS, CHAT, MAIL, SIGNING.removeprefix("whsec_"))
"""All that must be found nowhere."""
