"""How people reach the approvals page and sign in there: its address, what roles may do, OpenID Connect."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Permission = Literal["look", "decide"]


class OpenIdConnect(BaseModel):
    """An identity provider at which people sign in, by the authorization code flow with PKCE."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: str = Field(description="The provider's issuer, letter by letter; its discovery document lies below it.")
    client_id: str = Field(min_length=1, description="What the provider calls the gateway.")
    client_secret: str = Field(
        default="", pattern=r"^(env:\w+|block:[a-z0-9-]+)?$", description="Where the secret is: env:NAME, block:name."
    )
    scopes: tuple[str, ...] = Field(default=("openid", "email", "profile"), description="What is asked for.")
    name_claim: str = Field(default="email", description="The claim by which people sign their decisions.")
    email_verified: bool = Field(default=True, description="Whether a name claim `email` must be a verified one.")
    roles_claim: str = Field(default="groups", description="The claim with a person's groups or roles.")
    role_by_group: dict[str, str] = Field(default={}, description="Which role a group gives: group = role.")
    algorithms: tuple[Literal["RS256", "ES256"], ...] = Field(
        default=("RS256", "ES256"), min_length=1, description="Algorithms of signatures that are accepted."
    )

    @field_validator("issuer")
    @classmethod
    def _issuer(cls, issuer: str) -> str:
        if not is_secure_url(issuer):
            raise ValueError("an issuer is https://…; http:// for one on this machine alone (127.0.0.1)")
        return issuer

    @field_validator("scopes")
    @classmethod
    def _scopes(cls, scopes: tuple[str, ...]) -> tuple[str, ...]:
        if "openid" not in scopes:
            raise ValueError("without the scope openid the provider proves nothing")
        return scopes


class GatewaySettings(BaseModel):
    """Where people decide, for how long they are signed in, and which roles let them look or decide."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str = Field(default="", description="How people reach the gateway: https://ratchet.example.com.")
    session_hours: float = Field(default=8.0, gt=0, le=24, description="Hours after which people sign in again.")
    idle_minutes: float = Field(default=60.0, gt=0, le=1440, description="The same, of doing nothing.")
    allow_passwords: bool = Field(default=True, description="Whether accounts with passwords may sign in.")
    permissions_by_role: dict[str, Permission] = Field(
        default={"approver": "decide", "viewer": "look"}, description="What a role lets people do on the page."
    )
    oidc: OpenIdConnect | None = Field(default=None, description="The identity provider, where there is one.")

    @field_validator("address")
    @classmethod
    def _address(cls, address: str) -> str:
        if address and (not is_secure_url(address) or address.endswith("/")):
            raise ValueError("an address is https://host, without a slash at its end; http:// on 127.0.0.1 alone")
        return address


def is_secure_url(text: str) -> bool:
    """Whether the text is an address that nobody on the way can read or change."""
    here = ("http://127.0.0.1", "http://localhost", "http://[::1]")
    return text.startswith("https://") or any(
        text == base or text.startswith((f"{base}:", f"{base}/")) for base in here
    )
