"""The types of the flows' parameters, which the forms on the Prefect UI validate."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from runtime.foreign_text import refuse_hidden_characters, refuse_hidden_in_lines

ModelName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
"""Name of a folder below `models/`, or of the same model in a namespace: `churn--dana`."""

ModelOrAll = Annotated[str, Field(pattern=r"^([a-z][a-z0-9_-]{0,62})?$")]
"""Name of a folder below `models/`, in a namespace or not, or "" for all of them."""

EnvironmentName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
"""Name of a set of adapters: a file in `deployments/environments/`."""

DataTier = Literal["development", "staging", "full"]
"""The data tier: nested samples of whole entities."""

SourceAddress = Annotated[str, Field(max_length=4000), AfterValidator(refuse_hidden_characters)]
"""A file, folder, glob, table or URL of rows; the run is named for it."""

AsOf = Annotated[str, Field(max_length=100)]
"""A snapshot's id, an ISO 8601 time with a zone, or "" for now."""

PersonName = Annotated[str, Field(min_length=2, max_length=200), AfterValidator(refuse_hidden_characters)]
"""A person's name or e-mail address, as the ledger records it."""

Reason = Annotated[str, Field(min_length=3, max_length=2000), AfterValidator(refuse_hidden_in_lines)]
"""The reason of an action, as the ledger records it."""

OrderId = Annotated[str, Field(max_length=400)]
"""The id of a signed order, "" when there is none."""

TriggerReason = Annotated[str, Field(max_length=2000), AfterValidator(refuse_hidden_in_lines)]
"""Why the run was started, shown to the approvers; "" when a person simply requested it."""

RetrainEvent = Literal["model.drift.detected", "model.quality.degraded"]
"""The monitoring alerts that may start a retraining."""

Hyperparameters = dict[str, int | float | str | bool]
"""Values by name that override those of `training.parameters` in `model.yaml`."""

Count = Annotated[int, Field(ge=1, le=1000)]
"""A number of trials."""

Parallel = Annotated[int, Field(ge=1, le=16)]
"""How many trials run in parallel."""

Hours = Annotated[int, Field(ge=1, le=8760)]
"""A time in whole hours, up to a year."""

DatasetName = Annotated[str, Field(pattern=r"^([a-z][a-z0-9_-]{0,62})?$")]
"""A data set of the lake, or "" for none."""

Minutes = Annotated[float, Field(ge=0.01, le=44_640)]
"""A length of time, up to 31 days."""

Windows = Annotated[int, Field(ge=1, le=30)]
"""A number of consecutive windows."""

AlertRecordKey = Annotated[str, Field(max_length=300)]
"""The ledger key of an alert's signal, or "" for the newest one."""
