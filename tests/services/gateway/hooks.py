"""What git hosts send, for tests: genuine deliveries of each, which a case then spoils."""

import base64
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import httpx

from services.gateway.rules.payloads import Sender
from services.gateway.rules.rules import Triggers, parse_triggers

SECRET, OLD_SECRET = "a-secret-of-the-webhook", "the-secret-that-was-before"
SIGNING = "whsec_" + base64.b64encode(b"k" * 32).decode()
VARIABLES = {"HOOK": SECRET, "HOOK_BEFORE": OLD_SECRET, "HOOK_SIGNING": SIGNING}
NOW = 1_795_000_000
ANOTHER = "another-secret-altogether"
C1, C2, ZEROS = "1" * 40, "2" * 40, "0" * 40

TRIGGERS = """
senders:
  github: {secrets: [env:HOOK, env:HOOK_BEFORE]}
  gitlab: {secrets: [env:HOOK, env:HOOK_SIGNING]}
  bitbucket: {secrets: [env:HOOK]}
  gitea: {secrets: [env:HOOK]}
repositories:
  - {name: acme/models, sender: github, clone: "https://github.com/acme/models.git", branches: [main, "release/*"], tags: ["v*"]}
  - {name: acme/models, sender: gitlab, clone: "https://gitlab.com/acme/models.git"}
  - {name: acme/models, sender: bitbucket, clone: "https://bitbucket.org/acme/models.git"}
  - {name: acme/models, sender: gitea, clone: "https://git.acme.example/acme/models.git"}
rules:
  - {name: changed models, paths: ["models/{model}/**"], deployment: retrain/retrain, parameters: {model: "{model}", tier: staging, requested_by: "{author}"}}
"""


def triggers(text: str = TRIGGERS) -> Triggers:
    return parse_triggers(text, "triggers.yaml")


@dataclass(frozen=True)
class Hook:
    """A delivery as it goes over the wire."""

    sender: Sender
    body: bytes
    headers: tuple[tuple[str, bytes], ...]

    def but(self, **headers: str | bytes | None) -> "Hook":
        """Return it with headers changed (`_` for `-`), or left out (None)."""
        changed = {name.replace("_", "-"): value for name, value in headers.items()}
        kept = [(name, value) for name, value in self.headers if name not in changed]
        more = [(n, v.encode() if isinstance(v, str) else v) for n, v in changed.items() if v is not None]
        return replace(self, headers=(*kept, *more))

    def and_also(self, name: str, value: str | bytes) -> "Hook":
        return replace(self, headers=(*self.headers, (name, value.encode() if isinstance(value, str) else value)))

    def header(self, name: str) -> bytes:
        return next(value for key, value in self.headers if key == name)

    @property
    def request(self) -> httpx.Request:
        return httpx.Request("POST", f"http://gateway/hooks/{self.sender}", content=self.body, headers=self.raw)

    @property
    def raw(self) -> list[tuple[bytes, bytes]]:
        return [(name.encode(), value) for name, value in self.headers]


def as_bytes(body: Mapping[str, Any] | bytes) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def mac(body: bytes, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), body, sha256).hexdigest()


def hook(sender: Sender, event: str, body: Mapping[str, Any] | bytes, *, id: str = "d-1", secret: str = SECRET) -> Hook:
    """Return a genuine delivery."""
    content = as_bytes(body)
    own = {
        "github": {
            "x-github-event": event,
            "x-github-delivery": id,
            "x-hub-signature-256": "sha256=" + mac(content, secret),
        },
        "gitlab": {"x-gitlab-event": event, "idempotency-key": id, "x-gitlab-token": secret},
        "bitbucket": {"x-event-key": event, "x-request-uuid": id, "x-hub-signature": "sha256=" + mac(content, secret)},
        "gitea": {"x-gitea-event": event, "x-gitea-delivery": id, "x-gitea-signature": mac(content, secret)},
    }[sender]
    return Hook(sender, content, (("content-type", b"application/json"), *((n, v.encode()) for n, v in own.items())))


def standard(body: Mapping[str, Any], *, id: str = "d-1", at: float | str = NOW, token: str = SIGNING) -> Hook:
    """Return a delivery of GitLab with its newer signing token."""
    content, moment = as_bytes(body), at if isinstance(at, str) else str(int(at))
    key = base64.b64decode(token.removeprefix("whsec_"))
    signature = base64.b64encode(hmac.new(key, f"{id}.{moment}.".encode() + content, sha256).digest())
    bare = hook("gitlab", "Push Hook", content, id=id).but(x_gitlab_token=None)
    return bare.but(webhook_id=id, webhook_timestamp=moment, webhook_signature=b"v1," + signature)


def push(**changes: Any) -> dict[str, Any]:
    """Return what GitHub (and Gitea) say of a push to main that changed churn."""
    commits = [{"id": C2, "added": [], "removed": [], "modified": ["models/churn/train.py"]}]
    return {
        "ref": "refs/heads/main", "before": C1, "after": C2, "forced": False, "commits": commits, "total_commits": 1,
        "repository": {"full_name": "acme/models"}, "pusher": {"name": "ada", "email": "ada@acme.example"},
    } | changes  # fmt: skip


def gitlab_push(**changes: Any) -> dict[str, Any]:
    commits = [{"id": C2, "added": ["models/churn/x"], "removed": [], "modified": []}]
    return {
        "object_kind": "push", "ref": "refs/heads/main", "before": C1, "after": C2, "checkout_sha": C2,
        "user_email": "ada@acme.example", "total_commits_count": 1, "commits": commits,
        "project": {"path_with_namespace": "acme/models"},
    } | changes  # fmt: skip


def bitbucket_push(**changes: Any) -> dict[str, Any]:
    change = {
        "new": {"type": "branch", "name": "main", "target": {"hash": C2}},
        "old": {"type": "branch", "name": "main", "target": {"hash": C1}},
    }
    return {
        "actor": {"nickname": "ada"}, "repository": {"full_name": "acme/models"},
        "push": {"changes": [change | changes]},
    }  # fmt: skip


def pull_request(**changes: Any) -> dict[str, Any]:
    request = {
        "merged": True,
        "merge_commit_sha": C2,
        "base": {"ref": "main", "sha": C1},
        "merged_by": {"login": "ada"},
    }
    return {"action": "closed", "pull_request": request | changes, "repository": {"full_name": "acme/models"}}


def merge_request(**changes: Any) -> dict[str, Any]:
    attributes = {"action": "merge", "target_branch": "main", "merge_commit_sha": C2, "last_commit": {"id": C1}}
    return {
        "object_kind": "merge_request", "user": {"username": "ada"}, "object_attributes": attributes | changes,
        "project": {"path_with_namespace": "acme/models"},
    }  # fmt: skip


GENUINE = {
    "github": lambda id="d-1": hook("github", "push", push(), id=id),
    "gitlab": lambda id="d-1": hook("gitlab", "Push Hook", gitlab_push(), id=id),
    "gitlab signed": lambda id="d-1": standard(gitlab_push(), id=id),
    "bitbucket": lambda id="d-1": hook("bitbucket", "repo:push", bitbucket_push(), id=id),
    "gitea": lambda id="d-1": hook("gitea", "push", push(), id=id),
}
"""A push to main by each way of signing."""
