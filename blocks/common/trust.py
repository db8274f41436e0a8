"""Trust settings of an environment: signing keys, trusted public keys, people and roles, approval requirements."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from prefect.blocks.system import Secret
from pydantic import BaseModel, ConfigDict, Field

from blocks.common.errors import Rejected
from runtime.keys import KeyProblem, Keyring, Signer, load_signer, parse_signer

KEY_HOLDERS = {
    "decisions": "Only the machine where people decide has this key. On a laptop `make up` creates it.",
    "models": "Only the machine that trains models has this key. On a laptop `make up` creates it.",
}
"""Which machine has the private key of a purpose."""


@contextmanager
def _rejected() -> Iterator[None]:
    """Translate the error of an unusable key into Rejected: a retry would find the same key."""
    try:
        yield
    except KeyProblem as cause:
        raise Rejected(str(cause)) from cause


def keyring(lines: Iterable[str]) -> Keyring:
    """Return the trusted public keys, one per line. Raises Rejected if a line is not a public key."""
    with _rejected():
        return Keyring(lines)


class SigningSettings(BaseModel):
    """Private keys that sign, and public keys that are trusted: for decisions (Ed25519) and models (P-256)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    decisions_key: str = Field(default="", description="File of mode 0600 with the private key that signs decisions.")
    decisions_secret: str = Field(default="", description="Or the name of a Secret block that holds the key as PEM.")
    trusted_decision_keys: tuple[str, ...] = Field(
        default=(), description="Public keys whose decisions count, one line each."
    )
    decisions_head_file: str = Field(
        default="", description="File outside the ledger in which the signer records the last decision."
    )
    models_key: str = Field(default="", description="File of mode 0600 with the private key that signs models.")
    models_secret: str = Field(default="", description="Or the name of a Secret block that holds the key as PEM.")
    trusted_model_keys: tuple[str, ...] = Field(
        default=(), description="Public keys whose models are loaded, one line each."
    )

    def signer(self, purpose: Literal["decisions", "models"]) -> Signer:
        """Return the signer for this purpose on this machine. Raises Rejected if no key is configured."""
        file, secret = (
            (self.decisions_key, self.decisions_secret)
            if purpose == "decisions"
            else (self.models_key, self.models_secret)
        )
        head = Path(self.decisions_head_file) if purpose == "decisions" and self.decisions_head_file else None
        with _rejected():
            if secret:
                pem = Secret.load(secret).get()  # type: ignore[union-attr] # synchronous here
                return parse_signer(str(pem).encode(), f"in the Secret block {secret!r}", head)
            if file:
                return load_signer(Path(file), head, holder=KEY_HOLDERS[purpose])
        raise Rejected(
            f"this environment has no key to sign {purpose}; set signing.{purpose}_key on the machine that signs"
        )

    def trusted_keys(self, purpose: Literal["decisions", "models"]) -> Keyring:
        """Return the public keys trusted for this purpose. Raises Rejected if a line is not a public key."""
        return keyring(self.trusted_decision_keys if purpose == "decisions" else self.trusted_model_keys)


class RequiredApproval(BaseModel):
    """Approval requirements of an environment, in addition to those of the model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    approvals: int = Field(default=1, ge=1, le=10, description="Number of different people who must approve.")
    roles: tuple[str, ...] = Field(default=(), description="Roles; each approver must have one of them.")
    approvers: tuple[str, ...] = Field(default=(), description="People who may decide; empty: anyone.")
    four_eyes: bool = Field(default=False, description="The requester and the authors of the code may not decide.")
    expires_days: int = Field(default=365, ge=1, le=365, description="Maximum days until a request expires.")
    require_authentication: bool = Field(
        default=False, description="Only decisions of people who were authenticated count."
    )


class ApprovalSettings(RequiredApproval):
    """The requirements for every model, and those for single models."""

    models: dict[str, RequiredApproval] = Field(
        default={}, description="Requirements that replace these, by the model's name."
    )
