"""The data sections of `model.yaml`: the tables, their keys and times, and the tiers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Self

from pydantic import Field, model_validator

from runtime.values import label_text
from tasks.shared.rules.model.mistakes import KeyPath
from tasks.shared.rules.model.parts import SourceSpec
from tasks.shared.rules.model.strict_record import StrictRecord, did_you_mean, raise_problems, validation_error
from tasks.shared.rules.model.types import Column, Dataset, Name, OneLineText, ProblemIterator, Share
from tasks.shared.rules.refusal import Refusal

FeatureKind = Literal["number", "category", "flag"]

MAIN_TABLE = ""
"""The name of the main table, which holds the target; other tables have names under `data.tables`."""


@dataclass(frozen=True)
class IngestSchema:
    """The schema by which `ingest` reads one table of a model.

    Attributes:
        dataset: the lake's name for it.
        entity: the column that decides the bucket; never null.
        column_kinds: the declared columns in order with their kinds: key, time, number, category or flag.
        unique: the columns that together may occur once; rows that repeat them are duplicates.
        target: the column to predict, when the table holds it.
        classes: the values of the target in a classification.
        time: the column with the time of a row (main table), or since when it was known (others); never null.
        group: the column with the group of a row (main table), where there is one; never null.
        source: how the files of the table are written.
    """

    dataset: str
    entity: str
    column_kinds: Mapping[str, str]
    unique: tuple[str, ...]
    target: str | None = None
    classes: tuple[str, ...] = field(default=())
    time: str | None = None
    group: str | None = None
    source: SourceSpec = field(default_factory=SourceSpec)


class TableSpec(StrictRecord):
    """A joined table: each row of the main table takes columns from at most one row of it."""

    dataset: Dataset = Field(description="The lake's name for this table")
    keys: dict[Column, Column] = Field(
        min_length=1,
        description="The columns that must be equal, as `column of the main table: column of this table`. With the "
        "entity among them this table is sampled like the main table; without it the whole table is read",
    )
    time: Column | None = Field(
        default=None,
        description="The column that says since when a row of this table was known; each row of the main table "
        "takes the latest that is not after its own `data.time`. Without it the keys must be unique",
    )
    columns: dict[Column, Column] = Field(
        min_length=1,
        description="What is taken, as `feature: column of this table`; declare their kinds in `data.features`",
    )
    source: SourceSpec = Field(default=SourceSpec(), description="How the files of this table are written")

    def ingest_schema(self, data: "DataSpec") -> IngestSchema:
        """Return the ingest schema of this table of `data`."""
        own = list(self.keys.values())
        kinds: dict[str, str] = {**dict.fromkeys(own, "key"), **({self.time: "time"} if self.time else {})}
        kinds |= {column: data.features[feature] for feature, column in self.columns.items() if column not in kinds}
        entity = self.keys.get(data.entity, own[0])
        unique = (*own, *([self.time] if self.time else []))
        return IngestSchema(self.dataset, entity, kinds, unique, time=self.time, source=self.source)


class DataSpec(StrictRecord):
    """The tables that the model is trained on, and their columns."""

    dataset: Dataset = Field(description="The lake's name for the main table, the one that holds the target")
    entity: Column = Field(
        description="The column that names who or what a row is about; by default it decides the tier"
    )
    time: Column | None = Field(
        default=None,
        description="The time of the row's prediction request. With it an entity may have several rows, and joins use "
        "only data known by then",
    )
    group: Column | None = Field(
        default=None,
        description="A column of the main table such as household or shop: it draws the tiers instead of the entity, "
        "and the holdout keeps a group on one side",
    )
    target: Column = Field(description="The column to predict")
    classes: tuple[OneLineText, ...] = Field(
        default=(),
        description="The target's values, in the order of the model's probabilities; of two, the last is the "
        "positive one; none for a regression",
    )
    request_id: Column | None = Field(
        default=None,
        description="A column of the main table with the id (`X-Request-Id`) of the request whose prediction a row "
        "labels; it may be blank. Monitoring then pairs that label with that prediction",
    )
    features: dict[Column, FeatureKind] = Field(
        min_length=1,
        description="The columns that the model sees, each number, category or flag (0 or 1), of whichever table",
    )
    tables: dict[Name, TableSpec] = Field(default={}, description="Joined tables, by a name that you choose")
    publish: Dataset | None = Field(
        default=None,
        description="Keep the rows that the model reads as this data set of the lake, which other models may name",
    )
    source: SourceSpec = Field(default=SourceSpec(), description="How the files of the main table are written")

    @model_validator(mode="after")
    def _apart(self) -> Self:
        raise_problems((*self._overlaps(), *_case_conflicts(self._ingested_columns), *self._table_problems()))
        return self

    @property
    def main_features(self) -> tuple[str, ...]:
        """The features that are columns of the main table, in order."""
        joined = {feature for table in self.tables.values() for feature in table.columns}
        return tuple(feature for feature in self.features if feature not in joined)

    @property
    def unique(self) -> tuple[str, ...]:
        """The columns of the main table that together may occur once: the entity, and the time where there is one."""
        return (self.entity, *([self.time] if self.time else []))

    @property
    def row_columns(self) -> tuple[str, ...]:
        """The columns of the rows that the model reads: entity, time and group where declared, features, target."""
        return tuple(dict.fromkeys((*self._who_and_when(), *self.features, self.target)))

    def ingest_schema(self, table: str = MAIN_TABLE) -> IngestSchema:
        """Return the ingest schema of a table: the main one, or one of `tables` by name.

        Raises:
            Refusal: there is no such table; the message names the most similar one.
        """
        if table != MAIN_TABLE and table not in self.tables:
            remedy = did_you_mean(table, self.tables) or "The model has one table: leave the name empty."
            raise Refusal("the model has no such table", where="data.tables", value=table, remedy=remedy)
        return self.tables[table].ingest_schema(self) if table != MAIN_TABLE else self._main_ingest_schema()

    def _main_ingest_schema(self) -> IngestSchema:
        kinds: dict[str, str] = {self.entity: "key", **({self.time: "time"} if self.time else {})}
        kinds |= {column: self.features.get(column, "key") for column in self.main_columns if column not in kinds}
        kinds[self.target] = "category" if self.classes else "number"
        kinds |= {self.request_id: "text"} if self.request_id else {}
        return IngestSchema(
            self.dataset, self.entity, kinds, self.unique, self.target, self.classes, self.time, self.group, self.source
        )

    def _who_and_when(self) -> tuple[str, ...]:
        return (*self.unique, *([self.group] if self.group else []))

    @property
    def main_columns(self) -> tuple[str, ...]:
        """Columns of the main table that rows are read from: entity, time, group, keys, features, target, each once."""
        keys = (key for table in self.tables.values() for key in table.keys)
        return tuple(dict.fromkeys((*self._who_and_when(), *keys, *self.main_features, self.target)))

    @property
    def _ingested_columns(self) -> tuple[str, ...]:
        return (*self.main_columns, *([self.request_id] if self.request_id else []))

    def _overlaps(self) -> ProblemIterator:
        named = {"entity": self.entity, "target": self.target, "time": self.time, "request_id": self.request_id}
        roles = {role: column for role, column in named.items() if column}
        for role, column in roles.items():
            if column in self.features:
                error = validation_error(f"is the {role.replace('_', ' ')}, and must not be a feature", "Take it out.")
                yield ("features", column), error
        if self.entity == self.target:
            yield ("target",), validation_error("is the entity as well", "Name the column to predict.")
        if self.time in (self.entity, self.target):
            error = validation_error("is the entity or the target as well", "Name the column that holds a time.")
            yield ("time",), error
        if self.request_id and self.request_id in (*self.unique, self.target):
            error = validation_error("is the entity, the target or the time as well", "Name the column of the ids.")
            yield ("request_id",), error
        if self.group in (self.entity, self.target, self.time) and self.group:
            error = validation_error("is the entity, the target or the time as well", "Name the column of the group.")
            yield ("group",), error
        elif self.group in self.features and self.features[self.group] != "category":
            kind = f"is a {self.features[self.group]}, and a group is text"
            yield ("group",), validation_error(kind, "Declare it as a category.")
        elif self.group in self.features and self.group not in self.main_features:
            yield ("group",), validation_error("is no column of the main table", "Name a column that it holds.")
        labels = [label_text(label, "category") for label in self.classes]
        for number, label in enumerate(labels):
            if label in labels[:number]:
                yield ("classes", number), validation_error("is there twice", "Keep one of them.")

    def _table_problems(self) -> ProblemIterator:
        datasets = {self.dataset: "that of the main table"}
        taken: dict[str, str] = {}
        for name, table in self.tables.items():
            if table.dataset in datasets:
                problem = validation_error(
                    f"is {datasets[table.dataset]} as well", "Each table is a data set of its own."
                )
                yield ("tables", name, "dataset"), problem
            datasets[table.dataset] = f"that of `{name}`"
            for path, error in _table_problems(table, self, taken):
                yield ("tables", name, *path), error
            taken |= dict.fromkeys(table.columns, name)
            if all(feature in self.features for feature in table.columns):
                yield from _partition_problems(("tables", name, "source"), table.source, self.ingest_schema(name))
        yield from _partition_problems(("source",), self.source, self.ingest_schema())
        if self.publish in datasets:
            yield ("publish",), validation_error("is a table that the model reads", "Choose a new name.")


class TierSpec(StrictRecord):
    """The share of the entities in each tier; each tier contains the one before it."""

    development: Share = Field(default=0.01, description="Share of the entities for trying things, 0.0001 to 1")
    staging: Share = Field(default=0.10, description="Share for rehearsals; at least that of development")
    full: Share = Field(default=1.0, description="Always 1.0; only its models can be promoted")
    stratify_by: Column | None = Field(
        default=None,
        description="The target, or a category or flag of the main table: each of its values keeps the share for "
        "itself, so that a rare one is not lost in a small tier",
    )

    @model_validator(mode="after")
    def _nested(self) -> Self:
        raise_problems(self._disorder())
        return self

    def _disorder(self) -> ProblemIterator:
        if self.development > self.staging:
            yield ("development",), validation_error(f"must be at most that of staging, {self.staging:g}")
        if self.full != 1:
            yield ("full",), validation_error("must be 1.0", "The full tier contains all the data.")


def strata_problems(tiers: TierSpec, data: DataSpec) -> ProblemIterator:
    """Yield the problems of `tiers.stratify_by`, given the columns of `data`."""
    column = tiers.stratify_by
    if column is None:
        return
    known = [name for name in data.main_features if data.features[name] != "number"]
    known += [data.target] if data.classes else []
    if column not in known:
        kind = "is a number" if data.features.get(column) == "number" or column == data.target else "cannot part rows"
        remedy = did_you_mean(column, known) or "Take it out."
        error = validation_error(f"{kind}: it takes a category, flag or class of the main table", remedy)
        yield ("stratify_by",), error
    elif data.time or data.group:
        many = "an entity with many rows" if data.time else "a group with many entities"
        problem = f"does not go with data.{'time' if data.time else 'group'}: {many} may have many values"
        yield ("stratify_by",), validation_error(problem, "Take it out.")


def _table_problems(table: TableSpec, data: DataSpec, taken: Mapping[str, str]) -> ProblemIterator:
    for feature in table.columns:
        if feature not in data.features:
            error = validation_error("is not among data.features", did_you_mean(feature, data.features))
            yield ("columns", feature), error
        elif feature in taken:
            error = validation_error(f"comes from the table `{taken[feature]}` already", "Keep one of them.")
            yield ("columns", feature), error
    for key in table.keys:
        if key in (data.target, data.time):
            yield ("keys", key), validation_error("is the target or the time, and joins nothing", "Name a key.")
        elif key in data.features and key not in data.main_features:
            error = validation_error("is no column of the main table", "Name a column that the main table holds.")
            yield ("keys", key), error
        elif data.features.get(key) in ("number", "flag"):
            error = validation_error(f"is a {data.features[key]}, and keys are text", "Declare it as a category.")
            yield ("keys", key), error
    if table.time and data.time is None:
        error = validation_error("needs data.time, the time of the main table's rows", "Add it, or take this out.")
        yield ("time",), error
    if table.time in table.keys.values():
        yield ("time",), validation_error("is among the keys as well", "Name the column that holds a time.")
    yield from _case_conflicts([*table.keys.values(), *([table.time] if table.time else []), *table.columns.values()])


def _partition_problems(path: KeyPath, source: SourceSpec, schema: IngestSchema) -> ProblemIterator:
    for number, column in enumerate(source.partitions):
        if column not in schema.column_kinds:
            error = validation_error("is no column of this table", did_you_mean(column, schema.column_kinds))
            yield (*path, "partitions", number), error


def _case_conflicts(columns: Iterable[str]) -> ProblemIterator:
    """Yield columns of one table that differ only in case: SQL engines treat them as one."""
    seen: dict[str, str] = {}
    for column in columns:
        other = seen.setdefault(column.lower(), column)
        if other != column:
            path: KeyPath = ()
            yield (
                path,
                validation_error(
                    f"the columns {other} and {column} differ only in capitals", "Rename one in the source."
                ),
            )


def column_kinds(data: DataSpec) -> dict[str, str]:
    """Return the columns of a row with their kinds: entity, features, target."""
    target = "category" if data.classes else "number"
    return {data.entity: "key", **data.features, data.target: target}
