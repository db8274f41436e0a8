"""The sections of `model.yaml` except the data, each a strict record that validates itself.

`data` holds the sections about data; `spec` puts all sections together.
"""

import codecs
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from tasks.shared.rules.model.strict_record import StrictRecord, percent_hint, raise_problems, validation_error
from tasks.shared.rules.model.types import Column, Number, OneLineText, Parameter, ProblemIterator

_UNIT_INTERVAL_METRICS = {"auc", "average_precision", "brier", "accuracy", "calibration_error", "f1_macro"}


class TrainingSpec(StrictRecord):
    """How the training program is run."""

    seed: int = Field(ge=0, lt=2**31, description="Seed of everything random, 0 to 2,147,483,647")
    max_minutes: float = Field(gt=0, le=10_080, description="The job is stopped after this many minutes")
    max_memory_mb: int = Field(ge=64, description="The job is stopped above this much memory, in MiB, at least 64")
    validation_share: float | None = Field(
        default=None,
        ge=0.01,
        le=0.5,
        description="Share of the training rows that `train.py` gets as a channel of its own, `validation`, for early "
        "stopping and trials, divided by the same kind of rule as the holdout. Without it all are in `train`",
    )
    parameters: dict[OneLineText, Parameter] = Field(
        default={}, description="Hyperparameters that `train.py` gets: numbers, text, true or false"
    )


class SearchRange(StrictRecord):
    """The values from low to high, both included; whole numbers when both are."""

    low: Number = Field(description="The smallest value to try; write 1.0, not 1, for a parameter with decimals")
    high: Number = Field(description="The largest value to try")
    log: bool = Field(default=False, description="Try 1 to 10 as often as 10 to 100")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        raise_problems(self._disorder())
        return self

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are tried."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def _disorder(self) -> ProblemIterator:
        if self.low >= self.high:
            yield ("low",), validation_error(f"must be below high, {self.high:g}")
        if self.log and self.low <= 0:
            yield ("low",), validation_error("must be above 0 on a logarithmic scale", "Raise it, or take `log` out.")


class SearchChoices(StrictRecord):
    """One of the values listed."""

    choices: tuple[Parameter, ...] = Field(min_length=2, description="The values to try, instead of low and high")


def _search_space_tag(value: object) -> str:
    has_choices = "choices" in value if isinstance(value, dict) else isinstance(value, SearchChoices)
    return "<union choices>" if has_choices else "<union range>"


SearchSpace = Annotated[
    Annotated[SearchRange, Tag("<union range>")] | Annotated[SearchChoices, Tag("<union choices>")],
    Discriminator(_search_space_tag),
]


class Floor(StrictRecord):
    """A bound that a metric on the holdout must keep: exactly one of `at_least` and `at_most`."""

    metric: OneLineText = Field(description="A metric of the task")
    at_least: float | None = Field(default=None, description="The smallest value that passes")
    at_most: float | None = Field(default=None, description="The largest value that passes; give one of the two")

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            raise validation_error("needs exactly one of at_least and at_most")
        if self.metric in _UNIT_INTERVAL_METRICS and not 0 <= self.bound <= 1:
            problem = validation_error(f"must be from 0 to 1 for {self.metric}", percent_hint(self.bound))
            raise_problems([((self.side,), problem)])
        return self

    @property
    def side(self) -> Literal["at_least", "at_most"]:
        """Which of the two bounds is given."""
        return "at_most" if self.at_least is None else "at_least"

    @property
    def bound(self) -> float:
        """The value of the one bound that is given."""
        return self.at_least if self.at_least is not None else self.at_most or 0.0


class SliceFloor(Floor):
    """A floor for each group of rows that share a value of a column."""

    column: Column = Field(description="The feature by whose values the holdout is cut")
    minimum_rows: int = Field(ge=1, description="Groups with fewer rows are not evaluated")


class RepeatedSpec(StrictRecord):
    """The error budget of comparisons that are repeated, every night for example."""

    error_budget: float = Field(
        default=0.05,
        gt=0,
        le=0.5,
        description="Largest probability that any comparison of 365 days is a wrong `better`, above 0 up to 0.5",
    )
    off_because: OneLineText | None = Field(
        default=None, description="Reason to compare without an error budget; the evidence shows it"
    )


class ComparisonSpec(StrictRecord):
    """How a challenger is compared with the champion."""

    metric: OneLineText = Field(description="The metric of the task by which they are compared")
    rule: Literal["superior", "non_inferior"] = Field(
        description="superior: better beyond chance; non_inferior: not worse by the margin or more"
    )
    margin: float = Field(ge=0, description="In units of the metric, at least 0")
    confidence: float = Field(ge=0.8, lt=1, description="Confidence of the interval: 0.8 <= confidence < 1")
    repeated: RepeatedSpec = Field(default=RepeatedSpec(), description="The error budget of repeated comparisons")


class EvaluationSpec(StrictRecord):
    """What a model must show on the holdout."""

    minimum_rows: int = Field(ge=1, description="With fewer holdout rows the verdict is hold")
    floors: tuple[Floor, ...] = Field(min_length=1, description="Bounds that every model must keep")
    slices: tuple[SliceFloor, ...] = Field(default=(), description="Bounds within groups of rows")
    comparison: ComparisonSpec = Field(description="How the challenger is compared with the champion")
    backtests: int = Field(
        default=0,
        ge=0,
        le=24,
        description="By time: train and measure again at so many earlier cut-offs, and once with a holdout by hash. It "
        "costs a training each and changes no verdict. 0: none",
    )

    @property
    def trainings(self) -> int:
        """How many trainings a retraining makes: the challenger's, and with backtests their own and one by hash."""
        return self.backtests + 2 if self.backtests else 1


class BudgetSpec(StrictRecord):
    """What paid work on the model may cost. Without it no paid work is done."""

    per_run_usd: float = Field(default=0.0, ge=0, le=1_000_000, description="The most that a run may cost; 0: nothing")
    per_month_usd: float = Field(
        default=0.0, ge=0, le=1_000_000, description="The most for a calendar month (UTC), serving included; 0: nothing"
    )
    local_rows: int = Field(
        default=50_000,
        ge=0,
        description="Up to this many training rows the job runs on the local trainer, where there is one",
    )

    @model_validator(mode="after")
    def _a_run_fits_into_a_month(self) -> Self:
        if self.per_run_usd > self.per_month_usd:
            raise_problems(
                [(("per_run_usd",), validation_error(f"must be at most per_month_usd, {self.per_month_usd:g}"))]
            )
        return self


class ApprovalSpec(StrictRecord):
    """Who may approve, and how long a request is valid. An environment may require more."""

    expires_days: int = Field(default=7, ge=1, le=365, description="Days after which a request expires, 1 to 365")
    approvals: int = Field(default=1, ge=1, le=10, description="How many different people must approve, 1 to 10")
    approvers: tuple[OneLineText, ...] = Field(default=(), description="People who may decide; empty: anyone")
    roles: tuple[OneLineText, ...] = Field(
        default=(), description="Each approver needs one of these roles; the environment's file assigns them"
    )
    four_eyes: bool = Field(default=True, description="Neither the requester nor an author of the code may decide")


class ServingSpec(StrictRecord):
    """What a served model may contain beyond scikit-learn pipelines in skops' format. Each key accepts a risk."""

    loaders: tuple[OneLineText, ...] = Field(
        default=(), description="MLflow loaders that may load it, beside `mlflow.sklearn`: `mlflow.pyfunc.model`, ..."
    )
    trusted_types: tuple[OneLineText, ...] = Field(
        default=(), description="Types that skops may restore, beside those of scikit-learn and LightGBM"
    )
    allow_custom_code: bool = Field(
        default=False, description="It may bring code of its own: modules, or a model that is a program"
    )


class EvidenceSpec(StrictRecord):
    """How long the evidence of a promoted version is kept, and when its owner reviews the model."""

    retention_years: float = Field(default=10.0, ge=0.5, le=100, description="Years that it is kept, 0.5 to 100")
    review_days: int = Field(default=180, ge=1, le=3650, description="Days after which its owner reviews the model")


class InferenceLogSpec(StrictRecord):
    """What the inference log stores of requests and predictions; monitoring reads it."""

    enabled: bool = Field(
        default=True, description="Log requests and predictions; without it the model cannot be monitored"
    )
    exclude: tuple[Column, ...] = Field(
        default=(),
        description="Features, or the entity or the time, that are never written; they cannot be monitored",
    )
    hash: tuple[Column, ...] = Field(
        default=(),
        description="Features of which only a hash under the server's own key is written: equal values stay equal, "
        "and nothing else of them can be monitored",
    )


class RetrainingSpec(StrictRecord):
    """When an alert starts a retraining automatically.

    The resulting model needs the same gates and approval as that of any other run.
    """

    automatic: bool = Field(
        default=False,
        description="Retrain automatically after a drift or quality alert, when every condition below holds",
    )
    triggers: tuple[Literal["drift", "quality"], ...] = Field(
        default=("drift", "quality"),
        min_length=1,
        description="Alerts that start a retraining: drift (inputs, predictions, labels), quality (arrived labels)",
    )
    cool_down_hours: float = Field(
        default=24.0,
        ge=0,
        le=8760,
        description="Hours after an automatic retraining or a deployment in which no automatic retraining starts",
    )
    max_unsuccessful: int = Field(
        default=3, ge=1, le=100, description="Stop after this many automatic retrainings without an approved version"
    )
    unsuccessful_window_days: float = Field(default=30.0, ge=1, le=366, description="Days in which these are counted")
    min_new_labelled_rows: int = Field(
        default=1000, ge=1, description="Labelled rows that must have been ingested since the champion's snapshot"
    )
    max_label_age_days: float = Field(
        default=7.0,
        gt=0,
        le=3660,
        description="Largest age of the newest label in days: by `data.time`, without it by its ingestion",
    )


class SourceSpec(StrictRecord):
    """How the files of a table are written. The defaults are CSV as RFC 4180 has it, in UTF-8."""

    delimiter: Literal["comma", "semicolon", "tab", "bar"] | None = Field(
        default=None,
        description="What is between the fields of a CSV file; without it a tab in `.tsv` files, and a comma in others",
    )
    decimal: Literal["point", "comma"] = Field(default="point", description="The decimal mark of numbers in CSV files")
    thousands: Literal["none", "point", "comma", "space", "apostrophe"] = Field(
        default="none", description="The mark between groups of three digits of numbers in CSV files"
    )
    encoding: OneLineText = Field(
        default="utf-8", description="The encoding of CSV files, such as latin-1, windows-1252 or utf-16"
    )
    quoted: bool = Field(default=True, description="Whether a field of a CSV file may be in double quotes")
    partitions: tuple[Column, ...] = Field(
        default=(), description="Columns whose values are in the names of folders, `name=value/`, of any format"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        raise_problems(self._problems())
        return self

    def settings(self) -> dict[str, Any]:
        """Return the keys and values for a reader of files (`blocks.sources.SourceFormat`)."""
        marks = {key: _MARKS[word] for key in ("delimiter", "decimal", "thousands") if (word := getattr(self, key))}
        return {**self.model_dump(exclude={"delimiter"}), **marks}

    def _problems(self) -> ProblemIterator:
        if self.decimal == self.thousands:
            yield ("thousands",), validation_error("is the decimal mark as well", "Take one of them out.")
        if not self.quoted and self.decimal == self.delimiter:
            yield ("decimal",), validation_error("is the delimiter of fields without quotes as well", "Correct one.")
        if not is_text_encoding(self.encoding):
            remedy = "Write one that Python knows, such as latin-1, windows-1252 or utf-16."
            yield ("encoding",), validation_error("is no encoding of text", remedy)
        for number, column in enumerate(self.partitions):
            if column in self.partitions[:number]:
                yield ("partitions", number), validation_error("is there twice", "Keep one of them.")


def is_text_encoding(name: str) -> bool:
    """Return whether Python knows the encoding, each text has one form in it, and it can be read as a stream."""
    try:
        return codecs.lookup(name).name not in _NO_ENCODINGS and len("a".encode(name)) > 0
    except (LookupError, UnicodeError, ValueError):
        return False


_MARKS = {
    **{"none": "", "comma": ",", "semicolon": ";", "tab": "\t", "bar": "|", "point": ".", "apostrophe": "'’"},
    "space": " \u00a0\u202f",
}
_NO_ENCODINGS = {"idna", "punycode", "unicode-escape", "raw-unicode-escape", "undefined", "utf-7", "mbcs", "oem"}
