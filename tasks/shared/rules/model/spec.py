"""`model.yaml` as a strict record, with every key described.

Problems between two sections (a metric of another task) are reported once each section is valid.
"""

from collections import Counter
from collections.abc import Mapping
from itertools import chain
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from tasks.shared.rules.model.data import DataSpec, TierSpec, strata_problems
from tasks.shared.rules.model.holdout import HoldoutChoice, HoldoutRule, HoldoutSpec, holdout_problems, holdout_rule
from tasks.shared.rules.model.mistakes import KeyPath
from tasks.shared.rules.model.namespaces import namespace_part
from tasks.shared.rules.model.parts import (
    ApprovalSpec,
    BudgetSpec,
    EvaluationSpec,
    EvidenceSpec,
    InferenceLogSpec,
    RetrainingSpec,
    SearchChoices,
    SearchRange,
    SearchSpace,
    ServingSpec,
    TrainingSpec,
)
from tasks.shared.rules.model.strict_record import (
    StrictRecord,
    did_you_mean,
    parse_record,
    raise_problems,
    record_keys,
    validation_error,
)
from tasks.shared.rules.model.types import Lines, Name, OneLineText, ProblemIterator

TaskType = Literal["binary", "multiclass", "regression"]


class ModelSpec(StrictRecord):
    """The content of a `model.yaml`. The rules between its sections are checked here."""

    name: Name = Field(description="The model's name, and that of its folder")
    description: Lines = Field(min_length=1, description="What it predicts, in a sentence")
    owner: OneLineText = Field(description="Who is responsible for it: a person or a team")
    task: TaskType = Field(description="What kind of prediction it makes")
    data: DataSpec = Field(description="What it learns from")
    tiers: TierSpec = Field(default=TierSpec(), description="How much of the data each tier sees")
    holdout: HoldoutChoice = Field(
        default=0.2,
        description="The rows that evaluate and never train: a share up to 0.5 of the default kind, or a mapping",
    )
    training: TrainingSpec = Field(description="How the training program is run")
    search: dict[OneLineText, SearchSpace] = Field(
        default={}, description="What `experiment` may try, by parameter: low and high, or choices"
    )
    evaluation: EvaluationSpec = Field(description="What it must show on the holdout")
    budget: BudgetSpec = Field(default=BudgetSpec(), description="What paid work on it may cost")
    approval: ApprovalSpec = Field(default=ApprovalSpec(), description="Who may approve it")
    serving: ServingSpec = Field(default=ServingSpec(), description="What it may be made of")
    evidence: EvidenceSpec = Field(default=EvidenceSpec(), description="How long the evidence of a version is kept")
    inference_log: InferenceLogSpec = Field(
        default=InferenceLogSpec(), description="What the inference log stores, from the next deployment on"
    )
    retraining: RetrainingSpec = Field(
        default=RetrainingSpec(), description="Whether an alert starts a retraining automatically"
    )

    def own_dataset(self, kind: str) -> str:
        """Return the data set that the model itself writes: `churn-predictions`, in a namespace one of its own."""
        return f"{self.name if namespace_part(self.name) else self.data.dataset}-{kind}"

    @property
    def holdout_rule(self) -> HoldoutRule:
        """The rule by which rows are in the holdout."""
        return holdout_rule(self.holdout, self.data)

    @field_validator("data")
    @classmethod
    def _classes_suit_the_task(cls, data: DataSpec, info: ValidationInfo) -> DataSpec:
        if "task" in info.data:
            raise_problems(_class_problems(data.classes, info.data["task"]))
        return data

    @field_validator("tiers")
    @classmethod
    def _strata_suit_the_data(cls, tiers: TierSpec, info: ValidationInfo) -> TierSpec:
        if "data" in info.data:
            raise_problems(strata_problems(tiers, info.data["data"]))
        return tiers

    @field_validator("holdout")
    @classmethod
    def _holdout_suits_the_data(cls, holdout: float | HoldoutSpec, info: ValidationInfo) -> float | HoldoutSpec:
        if "data" in info.data:
            raise_problems(holdout_problems(holdout, info.data["data"]))
        return holdout

    @field_validator("search")
    @classmethod
    def _search_suits_the_parameters(
        cls, search: dict[str, SearchSpace], info: ValidationInfo
    ) -> dict[str, SearchSpace]:
        if "training" in info.data:
            raise_problems(_search_problems(search, info.data["training"].parameters))
        return search

    @field_validator("evaluation")
    @classmethod
    def _evaluation_suits_task_and_data(cls, evaluation: EvaluationSpec, info: ValidationInfo) -> EvaluationSpec:
        metrics = _metric_problems(evaluation, info.data["task"]) if "task" in info.data else ()
        slices = _slice_problems(evaluation, info.data["data"].features) if "data" in info.data else ()
        known = {"holdout", "data"} <= set(info.data)
        rule = holdout_rule(info.data["holdout"], info.data["data"]) if known else None
        backtests = _backtest_problems(evaluation, rule) if rule else ()
        raise_problems(chain(metrics, slices, backtests))
        return evaluation

    @field_validator("inference_log")
    @classmethod
    def _log_suits_the_data(cls, log: InferenceLogSpec, info: ValidationInfo) -> InferenceLogSpec:
        if "data" in info.data:
            raise_problems(_log_problems(log, info.data["data"]))
        return log


def parse_spec(text: str | bytes, where: str) -> ModelSpec:
    """Read a `model.yaml`. Raises Mistakes (a Refusal) with every mistake: line, key, value as written, remedy."""
    return parse_record(ModelSpec, text, where)


def spec_keys_markdown() -> str:
    """Return the table of all keys as Markdown, as `docs/model-yaml.md` holds it."""
    rows = [f"| `{key.key}` | {key.type} | {key.default} | {key.description} |" for key in record_keys(ModelSpec)]
    return "\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *rows]) + "\n"


def _class_problems(classes: tuple[str, ...], task: TaskType) -> ProblemIterator:
    count = len(classes)
    if task == "regression" and count:
        yield ("classes",), validation_error("a regression has no classes", "Take it out, or correct `task`.")
    if task == "binary" and count != 2:
        error = validation_error(f"a binary task has two classes, not {count}", "Negative first, positive last.")
        yield ("classes",), error
    if task == "multiclass" and count < 3:
        yield ("classes",), validation_error(f"a multiclass task has three classes or more, not {count}")


def _search_problems(
    search: Mapping[str, SearchSpace], parameters: Mapping[str, int | float | str | bool]
) -> ProblemIterator:
    for name, space in search.items():
        if name not in parameters:
            yield (name,), validation_error("is not among training.parameters", did_you_mean(name, parameters))
        elif isinstance(space, SearchRange):
            yield from _range_problems(name, space, parameters[name])
        else:
            yield from _choice_problems(name, space, parameters[name])


def _range_problems(name: str, space: SearchRange, parameter: object) -> ProblemIterator:
    if isinstance(parameter, bool | str):
        yield (name,), validation_error(f"training.parameters.{name} is no number", "List its values under `choices`.")
    elif isinstance(parameter, int) and not space.whole:
        error = validation_error(
            f"training.parameters.{name} is a whole number", "Write low and high without decimals."
        )
        yield (name,), error
    elif isinstance(parameter, float) and space.whole:
        error = validation_error(
            f"training.parameters.{name} has decimals", f"Write {space.low:.1f}, {space.high:.1f}."
        )
        yield (name,), error


def _choice_problems(name: str, space: SearchChoices, parameter: object) -> ProblemIterator:
    for number, choice in enumerate(space.choices):
        if type(choice) is not type(parameter):
            problem = f"is not of the kind of training.parameters.{name}, {parameter!r}"
            yield (name, "choices", number), validation_error(problem, "Write all values alike.")


def _metric_problems(evaluation: EvaluationSpec, task: TaskType) -> ProblemIterator:
    from tasks.evaluation.rules.metrics import METRICS  # brings pandas, 0.4 s, for one table of names

    known = METRICS[task]
    places: list[tuple[KeyPath, str]] = [(("comparison", "metric"), evaluation.comparison.metric)]
    places += [(("floors", at, "metric"), floor.metric) for at, floor in enumerate(evaluation.floors)]
    places += [(("slices", at, "metric"), floor.metric) for at, floor in enumerate(evaluation.slices)]
    for path, metric in places:
        if metric not in known:
            yield path, validation_error(f"is no metric of a {task} task", did_you_mean(metric, known))
    counts = Counter((floor.metric, floor.side) for floor in evaluation.floors)
    for at, floor in enumerate(evaluation.floors):
        if counts[floor.metric, floor.side] > 1:
            error = validation_error(f"{floor.metric} has more than one such floor", "Keep one.")
            yield ("floors", at, floor.side), error


def _slice_problems(evaluation: EvaluationSpec, features: Mapping[str, str]) -> ProblemIterator:
    for at, floor in enumerate(evaluation.slices):
        if floor.column not in features:
            error = validation_error("is not among data.features", did_you_mean(floor.column, features))
            yield ("slices", at, "column"), error


def _backtest_problems(evaluation: EvaluationSpec, rule: HoldoutRule) -> ProblemIterator:
    if evaluation.backtests and not rule.time:
        remedy = "Divide the holdout by time or group_and_time, or take it out."
        yield ("backtests",), validation_error(f"does not go with a holdout by {rule.by}: there is no cut-off", remedy)


def _log_problems(log: InferenceLogSpec, data: DataSpec) -> ProblemIterator:
    for at, column in enumerate(log.exclude):
        if column not in (*data.features, *data.unique):
            error = validation_error("is no feature, nor the entity or time", did_you_mean(column, data.features))
            yield ("exclude", at), error
    for at, column in enumerate(log.hash):
        if column in data.unique:
            role = "entity" if column == data.entity else "time"
            error = validation_error(f"is the {role}, and labels are joined by it", "Leave it out altogether.")
            yield ("hash", at), error
        elif column not in data.features:
            yield ("hash", at), validation_error("is not among data.features", did_you_mean(column, data.features))
        elif column in log.exclude:
            yield ("hash", at), validation_error("is left out already", "Keep one of the two.")
