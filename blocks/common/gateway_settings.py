"""Settings of pages: the gateway with sessions, permissions by role and OpenID Connect, and the dashboards."""

import re
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork, field_validator

from runtime.foreign_pages import parse_address

Permission = Literal["view", "decide"]
_VISIBLE = re.compile(r"[!-\[\]-~]+")  # of ASCII, and no backslash, which browsers read as a slash


class OpenIdConnect(BaseModel):
    """An OpenID Connect provider at which people sign in, by the authorization code flow with PKCE."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: str = Field(
        description="The provider's issuer, exactly as it writes it; its discovery document is below it."
    )
    client_id: str = Field(min_length=1, description="The client id that the provider gave the gateway.")
    client_secret: str = Field(
        default="", pattern=r"^(env:\w+|block:[a-z0-9-]+)?$", description="Where the secret is: env:NAME, block:name."
    )
    scopes: tuple[str, ...] = Field(
        default=("openid", "email", "profile"), description="Scopes that the gateway requests."
    )
    name_claim: str = Field(
        default="email", description="The claim whose value is the name that decisions are signed with."
    )
    email_verified: bool = Field(
        default=True, description="Whether an `email` that is the name claim must be verified."
    )
    roles_claim: str = Field(default="groups", description="The claim with a person's groups or roles.")
    role_by_group: dict[str, str] = Field(default={}, description="The role that a group gives: group = role.")
    algorithms: tuple[Literal["RS256", "ES256"], ...] = Field(
        default=("RS256", "ES256"), min_length=1, description="Signature algorithms that are accepted."
    )

    @field_validator("issuer")
    @classmethod
    def _issuer(cls, issuer: str) -> str:
        if not is_secure_url(issuer):
            raise ValueError("an issuer is https://…; http:// only on this machine (127.0.0.1)")
        return issuer

    @field_validator("scopes")
    @classmethod
    def _scopes(cls, scopes: tuple[str, ...]) -> tuple[str, ...]:
        if "openid" not in scopes:
            raise ValueError("without the scope openid the provider does not prove who signed in")
        return scopes


class GatewaySettings(BaseModel):
    """Gateway settings: URL, session length, and the permission that each role gives (view or decide)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str = Field(default="", description="Public URL of the gateway: https://ratchet.example.com.")
    other_addresses: tuple[str, ...] = Field(
        default=(), description="Further URLs by which it is reached, such as one for webhooks alone."
    )
    trusted_proxies: tuple[IPvAnyNetwork, ...] = Field(
        default=(),
        description="Addresses or networks of proxies whose X-Forwarded-For is believed; not even this machine is one.",
    )
    session_hours: float = Field(default=8.0, gt=0, le=24, description="Hours after which people sign in again.")
    idle_minutes: float = Field(
        default=60.0, gt=0, le=1440, description="Minutes without a request after which people sign in again."
    )
    allow_passwords: bool = Field(default=True, description="Whether accounts with passwords may sign in.")
    permissions_by_role: dict[str, Permission] = Field(
        default={"approver": "decide", "viewer": "view"},
        description="The permission that a role gives: view or decide.",
    )
    oidc: OpenIdConnect | None = Field(default=None, description="The identity provider, if there is one.")

    @field_validator("address")
    @classmethod
    def _address(cls, address: str) -> str:
        if address and (not is_secure_url(address) or address.endswith("/")):
            raise ValueError("an address is https://host, without a slash at its end; http:// only on 127.0.0.1")
        return address

    @field_validator("address", "other_addresses")
    @classmethod
    def _addresses(cls, given: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for address in filter(None, [given] if isinstance(given, str) else given):
            parse_address(address)
        return given

    @property
    def addresses(self) -> tuple[str, ...]:
        """All declared URLs of the gateway."""
        return tuple(filter(None, (self.address, *self.other_addresses)))


class DashboardSettings(BaseModel):
    """Folder and URL of the dashboards, the pages about models."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: str = Field(default="", description="Folder of the pages; empty: below the scratch folder.")
    url: str = Field(
        default="", pattern=r"^(https?://.+)?$", description="URL at which that folder is served; empty: none."
    )


def is_secure_url(text: str) -> bool:
    """Return whether the URL uses https, or http on the loopback interface; it names a host and no user."""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or "@" in parts.netloc or not _VISIBLE.fullmatch(text):
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and host in {"127.0.0.1", "localhost", "::1"})
