"""Record of a person as an environment's settings describe them."""

from pydantic import BaseModel, ConfigDict, Field


class Person(BaseModel):
    """A person: their other names, and their roles. The key in `people` is the name they sign with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    aliases: tuple[str, ...] = Field(default=(), description="Other names: e-mail addresses, spellings, git authors.")
    roles: tuple[str, ...] = Field(default=(), description="Roles, as in the approval requirements.")
    revoked: bool = Field(default=False, description="They may no longer decide, and their approvals no longer count.")
