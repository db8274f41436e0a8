"""The parts of `model.yaml`, each a strict record that checks itself; `model_spec` puts them together."""

import unicodedata
from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from tasks.logic.mistakes import KeyPath
from tasks.logic.strict_record import Record, percent_hint, refuse_all, rule

Problems = Iterator[tuple[KeyPath, PydanticCustomError]]
_FROM_0_TO_1 = {"auc", "average_precision", "brier", "accuracy", "calibration_error", "f1_macro"}
_RESERVED = "_bucket"


def _one_line(text: str) -> str:
    """Refuse text that is blank, or that an eye cannot tell from other text."""
    if not text or text != text.strip():
        raise rule("is empty, or begins or ends with a space")
    if any(unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for character in text):
        raise rule("holds a newline or an invisible character", "Take it out.")
    return text


def _name(text: str) -> str:
    """Refuse what could not be part of a file name, a registry name and an address alike."""
    plain = text.isascii() and text.replace("_", "").replace("-", "").isalnum() and text == text.lower()
    apart = all(part for part in text.replace("_", "-").split("-"))
    if not (plain and apart and text[0].isalpha() and len(text) <= 63):
        raise rule("is not a plain name", "Write a small letter, then up to 62 of: a to z, 0 to 9, - and _.")
    return text


def _dataset(text: str) -> str:
    if len(text) > 51:
        raise rule("is too long for a table", "Write at most 51 letters: the lake adds -quarantine and -predictions.")
    return text


def _column(text: str) -> str:
    if text == _RESERVED:
        raise rule(f"is kept for the lake's own column {_RESERVED}", "Rename the column.")
    return text


def _value(value: object) -> object:
    if not isinstance(value, bool | int | float | str):
        raise rule("must be a number, text, true or false")
    return value


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise rule("must be a number", "Take the quotes off." if isinstance(value, str) else "")
    return value


Line = Annotated[str, AfterValidator(_one_line)]
Name = Annotated[str, AfterValidator(_name)]
Column = Annotated[Line, AfterValidator(_column)]
Parameter = Annotated[int | float | str | bool, BeforeValidator(_value)]
Number = Annotated[int | float, BeforeValidator(_number)]
Share = Annotated[float, Field(ge=0.0001, le=1)]


class DataSpec(Record):
    """Which table the model learns from, and what its columns are."""

    dataset: Annotated[Name, AfterValidator(_dataset)] = Field(description="The lake's name for the table")
    entity: Column = Field(description="The column that names who or what a row is about; it decides tier and holdout")
    target: Column = Field(description="The column to predict")
    classes: tuple[Line, ...] = Field(
        default=(),
        description="The target's values, in the order of the model's probabilities; of two, the last is the "
        "positive one; none for a regression",
    )
    features: dict[Column, Literal["number", "category", "flag"]] = Field(
        min_length=1, description="The columns that the model sees, each number, category or flag (0 or 1)"
    )

    @model_validator(mode="after")
    def _apart(self) -> Self:
        refuse_all(self._overlaps())
        return self

    def _overlaps(self) -> Problems:
        for role, column in (("entity", self.entity), ("target", self.target)):
            if column in self.features:
                yield ("features", column), rule(f"is the {role}, and must not be a feature", "Take it out.")
        if self.entity == self.target:
            yield ("target",), rule("is the entity as well", "Name the column to predict.")
        for number, label in enumerate(self.classes):
            if label in self.classes[:number]:
                yield ("classes", number), rule("is there twice", "Keep one of them.")


class Tiers(Record):
    """How much of the data each tier sees: the share of the entities; each tier holds the one before it."""

    development: Share = Field(default=0.01, description="Share of the entities for trying things, 0.0001 to 1")
    staging: Share = Field(default=0.10, description="Share for rehearsals; at least that of development")
    production: Share = Field(default=1.0, description="Always 1.0; only its models can be promoted")

    @model_validator(mode="after")
    def _nested(self) -> Self:
        refuse_all(self._disorder())
        return self

    def _disorder(self) -> Problems:
        if self.development > self.staging:
            yield ("development",), rule(f"must be at most that of staging, {self.staging:g}")
        if self.production != 1:
            yield ("production",), rule("must be 1.0", "Production models see all the data.")


class TrainingSpec(Record):
    """How the training program is run."""

    seed: int = Field(ge=0, lt=2**31, description="Seed of everything random, 0 to 2,147,483,647")
    max_minutes: float = Field(gt=0, le=10_080, description="The job is stopped after this many minutes")
    max_memory_mb: int = Field(ge=64, description="The job is stopped above this much memory, in MiB, at least 64")
    parameters: dict[Line, Parameter] = Field(
        default={}, description="Hyperparameters that `train.py` gets: numbers, text, true or false"
    )


class Range(Record):
    """The values from low to high, both included; whole numbers when both are."""

    low: Number = Field(description="The smallest value to try; write 1.0, not 1, for a parameter with decimals")
    high: Number = Field(description="The largest value to try")
    log: bool = Field(default=False, description="Try 1 to 10 as often as 10 to 100")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        refuse_all(self._disorder())
        return self

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are tried."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def _disorder(self) -> Problems:
        if self.low >= self.high:
            yield ("low",), rule(f"must be below high, {self.high:g}")
        if self.log and self.low <= 0:
            yield ("low",), rule("must be above 0 on a logarithmic scale", "Raise it, or take `log` out.")


class Choices(Record):
    """One of the values listed."""

    choices: tuple[Parameter, ...] = Field(min_length=2, description="The values to try, instead of low and high")


def _kind_of_space(value: object) -> str:
    has_choices = "choices" in value if isinstance(value, dict) else isinstance(value, Choices)
    return "<union choices>" if has_choices else "<union range>"


SearchSpace = Annotated[
    Annotated[Range, Tag("<union range>")] | Annotated[Choices, Tag("<union choices>")],
    Discriminator(_kind_of_space),
]


class Floor(Record):
    """A bound that a metric on the holdout must keep: exactly one of `at_least` and `at_most`."""

    metric: Line = Field(description="A metric of the task")
    at_least: float | None = Field(default=None, description="The smallest value that passes")
    at_most: float | None = Field(default=None, description="The largest value that passes; give one of the two")

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            raise rule("needs exactly one of at_least and at_most")
        if self.metric in _FROM_0_TO_1 and not 0 <= self.bound <= 1:
            problem = rule(f"must be from 0 to 1 for {self.metric}", percent_hint(self.bound))
            refuse_all([((self.side,), problem)])
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
    minimum_rows: int = Field(ge=1, description="Groups with fewer rows are not judged")


class Comparison(Record):
    """How a challenger is held against the champion."""

    metric: Line = Field(description="The metric of the task by which they are compared")
    rule: Literal["superior", "non_inferior"] = Field(
        description="superior: better beyond chance; non_inferior: not worse by the margin or more"
    )
    margin: float = Field(ge=0, description="In units of the metric, at least 0")
    confidence: float = Field(ge=0.8, lt=1, description="Confidence of the interval, 0.8 up to but not 1")


class EvaluationSpec(Record):
    """What a model must show on the holdout."""

    minimum_rows: int = Field(ge=1, description="With fewer holdout rows the verdict is hold")
    floors: tuple[Floor, ...] = Field(min_length=1, description="Bounds that every model must keep")
    slices: tuple[SliceFloor, ...] = Field(default=(), description="Bounds within groups of rows")
    comparison: Comparison = Field(description="The challenger against the champion")


class ApprovalPolicy(Record):
    """Who may approve, and for how long it counts."""

    expires_days: int = Field(default=7, ge=1, le=365, description="Days after which a request lapses, 1 to 365")
    approvers: tuple[Line, ...] = Field(default=(), description="Names that may decide; empty: anyone with a name")
    four_eyes: bool = Field(default=True, description="Who asked may not decide")
