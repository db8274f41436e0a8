"""Trust settings of an environment: signing keys, trusted public keys, people and roles, approval requirements."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from blocks.common.errors import Rejected
from blocks.records.approvals import UnauthenticatedRequester
from runtime.keys import KeyProblem, Keyring, Signer, load_signer

KEY_HOLDERS = {
    "decisions": "Only the machine where people decide has this key. On a laptop `make up` creates it.",
    "models": "Only the machine that trains models has this key. On a laptop `make up` creates it.",
    "records": "Only the machines that run workers have this key. On a laptop `make up` creates it.",
}
"""Which machine has the private key of a purpose."""

Purpose = Literal["decisions", "models", "records"]


@dataclass(frozen=True)
class ChainTrust:
    """What a reader and a writer of the ledger's chain need.

    Attributes:
        keys: the trusted public keys, by purpose.
        heads: the files with the recorded ends of the chain, of each signer of this machine.
        signer: returns the signer of records; raises Rejected when this machine has none.
    """

    keys: Mapping[Literal["decisions", "records"], Keyring]
    heads: tuple[Path, ...]
    signer: Callable[[], Signer]


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
    """Private keys that sign, and public keys that are trusted.

    People's decisions are signed by one key (Ed25519), rows of the ledger by the key of the workers (Ed25519), and
    models by a third (P-256).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    decisions_key: str = Field(default="", description="File of mode 0600 with the private key that signs decisions.")
    trusted_decision_keys: tuple[str, ...] = Field(
        default=(), description="Public keys whose decisions count, one line each."
    )
    decisions_head_file: str = Field(
        default="", description="File outside the ledger in which the signer records the last decision."
    )
    records_key: str = Field(
        default="", description="File of mode 0600 with the private key by which workers sign rows of the ledger."
    )
    trusted_record_keys: tuple[str, ...] = Field(
        default=(), description="Public keys whose rows of the ledger count, one line each."
    )
    records_head_file: str = Field(
        default="", description="File outside the ledger in which the signer records the last row."
    )
    models_key: str = Field(default="", description="File of mode 0600 with the private key that signs models.")
    trusted_model_keys: tuple[str, ...] = Field(
        default=(), description="Public keys whose models are loaded, one line each."
    )

    @model_validator(mode="after")
    def _check_one_purpose(self) -> Self:
        if both := {*self.trusted_decision_keys} & {*self.trusted_record_keys} - {""}:
            raise ValueError(
                f"the key {sorted(both)[0][:40]}… is in trusted_decision_keys and in trusted_record_keys: workers have "
                "the key of records, and could sign decisions. Use two keys."
            )
        return self

    def signer(self, purpose: Purpose) -> Signer:
        """Return the signer for this purpose on this machine. Raises Rejected if no key is configured."""
        file, head = getattr(self, f"{purpose}_key"), self._head_file(purpose)
        with _rejected():
            if file:
                return load_signer(Path(file), head, holder=KEY_HOLDERS[purpose])
        raise Rejected(
            f"this environment has no key to sign {purpose}; set signing.{purpose}_key on the machine that signs"
        )

    def trusted_keys(self, purpose: Purpose) -> Keyring:
        """Return the public keys trusted for this purpose. Raises Rejected if a line is not a public key."""
        return keyring(getattr(self, f"trusted_{purpose.removesuffix('s')}_keys"))

    def chain_trust(self) -> ChainTrust:
        """Return what is trusted in the ledger's chain. Raises Rejected if a line is not a public key."""
        return ChainTrust(
            {"decisions": self.trusted_keys("decisions"), "records": self.trusted_keys("records")},
            tuple(filter(None, map(self._head_file, ("decisions", "records")))),
            lambda: self.signer("records"),
        )

    def _head_file(self, purpose: str) -> Path | None:
        file = getattr(self, f"{purpose}_head_file", "")
        return Path(file) if file else None


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
    unauthenticated_requester: UnauthenticatedRequester = Field(
        default="extra_approver",
        description="With four eyes and require_authentication, when nobody proved who requested the run (a schedule, "
        "auto-retrain, the Prefect UI): extra_approver: one more person approves; refuse; accept.",
    )


class ApprovalSettings(RequiredApproval):
    """The requirements for every model, and those for single models."""

    models: dict[str, RequiredApproval] = Field(
        default={}, description="Requirements that replace these, by the model's name."
    )
