"""Whom an environment trusts: whose keys sign, who is who, and what an approval takes."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from prefect.blocks.system import Secret
from pydantic import BaseModel, ConfigDict, Field

from blocks.common.errors import Rejected
from runtime.keys import KeyProblem, Keyring, Signer, load_signer, parse_signer


@contextmanager
def _rejected() -> Iterator[None]:
    """Make the port's own error of a key that cannot be used: another attempt finds the same key."""
    try:
        yield
    except KeyProblem as cause:
        raise Rejected(str(cause)) from cause


def signer_from(file: Path, head: Path | None = None) -> Signer:
    """Return the signer whose private key is in the file. Raises Rejected when there is none that may be used."""
    with _rejected():
        return load_signer(file, head)


def keyring(lines: Iterable[str]) -> Keyring:
    """Return the public keys of the lines, which are pinned. Raises Rejected when a line is no public key."""
    with _rejected():
        return Keyring(lines)


class SigningSettings(BaseModel):
    """Which keys sign, and which public keys are pinned, for decisions (Ed25519) and for models (P-256)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    decisions_key: str = Field(default="", description="File of mode 0600 with the private key that signs decisions.")
    decisions_secret: str = Field(default="", description="Or the name of a Secret block that holds it, as PEM.")
    trusted_decision_keys: tuple[str, ...] = Field(
        default=(), description="Public keys whose decisions count, one line each."
    )
    decisions_head_file: str = Field(
        default="", description="File in which the signer notes the last decision; not in the ledger."
    )
    models_key: str = Field(default="", description="File of mode 0600 with the private key that signs models.")
    models_secret: str = Field(default="", description="Or the name of a Secret block that holds it, as PEM.")
    trusted_model_keys: tuple[str, ...] = Field(
        default=(), description="Public keys whose models are loaded, one line each."
    )

    def signer(self, purpose: Literal["decisions", "models"]) -> Signer:
        """Return who signs `purpose` on this machine. Raises Rejected when it has no key."""
        file, secret = (
            (self.decisions_key, self.decisions_secret)
            if purpose == "decisions"
            else (self.models_key, self.models_secret)
        )
        head = Path(self.decisions_head_file) if purpose == "decisions" and self.decisions_head_file else None
        if secret:
            pem = Secret.load(secret).get()  # type: ignore[union-attr] # synchronous here
            with _rejected():
                return parse_signer(str(pem).encode(), f"in the Secret block {secret!r}", head)
        if not file:
            raise Rejected(
                f"this environment has no key to sign {purpose}; give signing.{purpose}_key, where they are signed"
            )
        return signer_from(Path(file), head)

    def trusted_keys(self, what: Literal["decisions", "models"]) -> Keyring:
        """Return the public keys that are pinned for `what`. Raises Rejected when a line is no public key."""
        return keyring(self.trusted_decision_keys if what == "decisions" else self.trusted_model_keys)


class RequiredApproval(BaseModel):
    """What an environment asks of the approvals of a model, over what the model itself asks for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    approvals: int = Field(default=1, ge=1, le=10, description="How many different people must approve.")
    roles: tuple[str, ...] = Field(default=(), description="Roles, one of which each of them bears.")
    approvers: tuple[str, ...] = Field(default=(), description="Names that may decide; empty: anyone with a name.")
    four_eyes: bool = Field(default=False, description="Neither who asked nor who wrote the code may decide.")
    expires_days: int = Field(default=365, ge=1, le=365, description="Days after which a request lapses, at most.")
    require_authentication: bool = Field(
        default=False, description="Only decisions count whose channel proved who it was."
    )


class ApprovalSettings(RequiredApproval):
    """The rule for every model, and those for single ones."""

    models: dict[str, RequiredApproval] = Field(
        default={}, description="Rules in place of this one, by the model's name."
    )


class Person(BaseModel):
    """A person, under the name by which they sign: other names of theirs, and what they may do."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    aliases: tuple[str, ...] = Field(default=(), description="Other names: e-mail addresses, spellings, git authors.")
    roles: tuple[str, ...] = Field(default=(), description="Roles, as the approval rules name them.")
    revoked: bool = Field(
        default=False, description="May decide nothing any more, and what they approved counts no more."
    )
