"""Right and wrong `model.yaml` texts: what is written, and what must be told of it."""

GOOD = """\
name: price
description: What a house sells for.
owner: team@example.com
task: regression
data:
  dataset: houses
  entity: house_id
  target: price
  features:
    rooms: number
    street: category
    garden: flag
training:
  seed: 7
  max_minutes: 10
  max_memory_mb: 1024
  parameters:
    trees: 100
    rate: 0.1
    loss: squared
search:
  trees: {low: 10, high: 200}
  rate: {low: 0.01, high: 1.0, log: true}
  loss: {choices: [squared, absolute]}
evaluation:
  minimum_rows: 50
  floors:
    - {metric: r2, at_least: 0.4}
  slices:
    - {column: street, metric: rmse, at_most: 20.5, minimum_rows: 30}
  comparison:
    metric: rmse
    rule: superior
    margin: 0.5
    confidence: 0.95
approval:
  approvers: [Ann Lee]
"""
BINARY = GOOD.replace("task: regression", "task: binary").replace(
    "  target: price\n", '  target: price\n  classes: ["No", "Yes"]\n'
)
BINARY = BINARY.replace("r2", "auc").replace("rmse", "auc").replace("at_most: 20.5", "at_least: 0.5")

# what is replaced, by what, and then what must be told: line, key, value, and a part of the message
CASES = {
    "4 duplicate key": ("owner:", "name: b\nowner:", 3, "name", "", "first in line 1"),
    "5 no for text": ("team@example.com", "no", 3, "owner", "no", 'quote it: "no"'),
    "6 1.10 for text": ("team@example.com", "1.10", 3, "owner", "1.10", 'Quote it: "1.10"'),
    "7 sexagesimal": ("max_minutes: 10", "max_minutes: 12:30", 15, "training.max_minutes", "12:30", "one number"),
    "8 octal": ("seed: 7", "seed: 010", 14, "training.seed", "010", "octal"),
    "9 1e3": ("trees: 100", "trees: 1e3", 18, "training.parameters.trees", "1e3", "Write 1000.0"),
    "10 nan floor": ("0.4}", ".nan}", 28, "evaluation.floors[0].at_least", ".nan", "finite"),
    "11 inf margin": ("margin: 0.5", "margin: .inf", 34, "evaluation.comparison.margin", ".inf", "finite"),
    "12 floor as text": ("0.4}", '"0.4"}', 28, "evaluation.floors[0].at_least", '"0.4"', "Take the quotes off"),
    "13 confidence in percent": ("0.95", "95", 35, "evaluation.comparison.confidence", "95", "95 % is 0.95"),
    "14 typo in a key": ("owner:", "ownr:", 3, "ownr", "team@example.com", "Did you mean `owner`?"),
    "22 30 digits": ("seed: 7", f"seed: {'7' * 30}", 14, "training.seed", "7" * 30, "out of range"),
    "22 seed past 31 bits": ("seed: 7", f"seed: {2**31}", 14, "training.seed", str(2**31), "less than 2147483648"),
    "23 impossible date": ("team@example.com", "2024-02-30", 3, "owner", "2024-02-30", "date"),
    "24 name with ..": ("name: price", "name: ../price", 1, "name", "../price", "not a plain name"),
    "data set beyond 51": ("houses", "h" * 52, 6, "data.dataset", "h" * 52, "51 letters"),
    "name with a hole": ("name: price", "name: price--now", 1, "name", "price--now", "plain name"),
    "24 data set with NUL": ("houses", '"a\\0b"', 6, "data.dataset", '"a\\0b"', "not a plain name"),
    "24 name with a newline": ("name: price", 'name: "price\\n"', 1, "name", '"price\\n"', "not a plain name"),
    "24 column with NUL": ("entity: house_id", 'entity: "a\\0"', 7, "data.entity", '"a\\0"', "invisible"),
    "24 column with a newline": ("target: price", 'target: "a\\n"', 8, "data.target", '"a\\n"', "space"),
    "column with a reversed word": ("target: price", 'target: "a\\u202eb"', 8, "data.target", '"a\\u202eb"',
        "invisible"),
    "capital in the name": ("name: price", "name: Price", 1, "name", "Price", "small letter"),
    "name beyond 63": ("name: price", f"name: {'p' * 64}", 1, "name", "p" * 57 + "...", "62"),
    "missing key": ("task: regression\n", "", 1, "task", "", "Add it: What kind"),
    "missing deep key": ("    margin: 0.5\n", "", 31, "evaluation.comparison.margin", "", "Add it"),
    "key without a value": ("team@example.com", "", 3, "owner", "", "has no value"),
    "empty section": ("search:\n", "tiers:\nsearch:\n", 21, "tiers", "", "has no value"),
    "text for a mapping": ("search:\n", "tiers: all\nsearch:\n", 21, "tiers", "all", "mapping"),
    "text for a list": ("[Ann Lee]", "Ann Lee", 37, "approval.approvers", "Ann Lee", "must be a list"),
    "a run above its month": ("approval:", "budget: {per_run_usd: 5.0, per_month_usd: 4.0}\napproval:", 36,
        "budget.per_run_usd", "5.0", "at most per_month_usd, 4"),
    "a negative budget": ("approval:", "budget: {per_month_usd: -1.0}\napproval:", 36, "budget.per_month_usd", "-1.0",
        "at least 0"),
    "unknown task": ("regression", "regresion", 4, "task", "regresion", "Did you mean `regression`?"),
    "unknown kind of feature": ("rooms: number", "rooms: numeric", 10, "data.features.rooms", "numeric", "`number`"),
    "no features": ("  features:\n    rooms: number\n    street: category\n    garden: flag\n", "  features: {}\n", 9,
                    "data.features", "", "at least 1"),
    "whole number with decimals": ("1024", "1024.5", 16, "training.max_memory_mb", "1024.5", "whole number"),
    "true for a number": ("margin: 0.5", "margin: true", 34, "evaluation.comparison.margin", "true",
        "must be a number"),
    "number for true": ("[Ann Lee]", "[]\n  four_eyes: 1", 38, "approval.four_eyes", "1", "true or false"),
    "parameter of another kind": ("rate: 0.1", "rate: [1]", 19, "training.parameters.rate", "", "number, text"),
    "key in another place": ("seed: 7", "seed: 7\n  margin: 1", 15, "training.margin", "1",
        "under `evaluation.comparison`"),
    "target among features": ("rooms: number", "price: number", 10, "data.features.price", "number", "is the target"),
    "entity among features": ("rooms: number", "house_id: number", 10, "data.features.house_id", "number",
        "is the entity"),
    "entity is the target": ("target: price", "target: house_id", 8, "data.target", "house_id", "entity as well"),
    "the lake's column": ("rooms: number", "_bucket: number", 10, "data.features._bucket", "", "lake's own column"),
    "classes of a regression": ("target: price", "target: price\n  classes: [a, b]", 9, "data.classes", "",
        "no classes"),
    "metric of another task": ("r2, at_least", "auc, at_least", 28, "evaluation.floors[0].metric", "auc",
        "Known: rmse, mae, r2"),
    "metric misspelt": ("metric: rmse\n", "metric: rsme\n", 32, "evaluation.comparison.metric", "rsme", "`rmse`"),
    "no floors": ("\n    - {metric: r2, at_least: 0.4}", " []", 27, "evaluation.floors", "", "at least 1"),
    "floor without a bound": ("r2, at_least: 0.4", "r2", 28, "evaluation.floors[0]", "", "exactly one"),
    "floor with two bounds": ("0.4}", "0.4, at_most: 0.9}", 28, "evaluation.floors[0]", "", "exactly one"),
    "two equal floors": ("0.4}", "0.4}\n    - {metric: r2, at_least: 0.5}", 28, "evaluation.floors[0].at_least",
        "0.4",
                         "more than one"),
    "slice of no feature": ("column: street", "column: stret", 30, "evaluation.slices[0].column", "stret",
        "`street`"),
    "negative margin": ("margin: 0.5", "margin: -0.5", 34, "evaluation.comparison.margin", "-0.5", "at least 0"),
    "no rows needed": ("minimum_rows: 50", "minimum_rows: 0", 26, "evaluation.minimum_rows", "0", "at least 1"),
    "unknown rule": ("superior", "better", 33, "evaluation.comparison.rule", "better", "superior, non_inferior"),
    "search of no parameter": ("  trees: {low", "  treees: {low", 22, "search.treees", "", "Did you mean `trees`?"),
    "range upside down": ("low: 10, high: 200", "low: 200, high: 10", 22, "search.trees.low", "200", "below high"),
    "logarithm of zero": ("low: 0.01", "low: 0.0", 23, "search.rate.low", "0.0", "logarithmic"),
    "range with decimals for whole": ("low: 10,", "low: 1.5,", 22, "search.trees", "", "without decimals"),
    "whole range for decimals": ("low: 0.01, high: 1.0", "low: 1, high: 2", 23, "search.rate", "", "Write 1.0, 2.0"),
    "range for text": ("{choices: [squared, absolute]}", "{low: 1, high: 2}", 24, "search.loss", "", "`choices`"),
    "choices of another kind": ("squared, absolute", "squared, 3", 24, "search.loss.choices[1]", "3",
        "not of the kind"),
    "one choice": ("squared, absolute", "squared", 24, "search.loss.choices", "", "at least 2"),
    "range and choices": ("{choices:", "{low: 1, choices:", 24, "search.loss.low", "1", "is not a known key"),
    "half a range": ("low: 10, high: 200", "low: 10", 22, "search.trees.high", "", "Add it"),
    "low as text": ("low: 10", 'low: "10"', 22, "search.trees.low", '"10"', "Take the quotes off"),
    "holdout of all": ("search:\n", "holdout: 0.6\nsearch:\n", 21, "holdout", "0.6", "at most 0.5"),
    "tier in percent": ("search:\n", "tiers: {staging: 10}\nsearch:\n", 21, "tiers.staging", "10", "10 % is 0.1"),
    "tier of nothing": ("search:\n", "tiers: {development: 0}\nsearch:\n", 21, "tiers.development", "0",
        "at least 0.0001"),
    "tiers upside down": ("search:\n", "tiers: {development: 0.5}\nsearch:\n", 21, "tiers.development", "0.5",
        "staging"),
    "production of a part": ("search:\n", "tiers: {production: 0.5}\nsearch:\n", 21, "tiers.production", "0.5",
        "1.0"),
    "expiry of nothing": ("[Ann Lee]", "[]\n  expires_days: 0", 38, "approval.expires_days", "0", "at least 1"),
    "log without an unknown column": ("[Ann Lee]", "[]\ninference_log: {leave_out: [roms]}", 38,
        "inference_log.leave_out[0]", "roms", "`rooms`"),
    "log with a hash of the entity": ("[Ann Lee]", "[]\ninference_log: {hash: [house_id]}", 38,
        "inference_log.hash[0]", "house_id", "labels are joined by it"),
    "log with a column twice": ("[Ann Lee]", "[]\ninference_log: {leave_out: [rooms], hash: [rooms]}", 38,
        "inference_log.hash[0]", "rooms", "left out already"),
    "blank approver": ("[Ann Lee]", '[" "]', 37, "approval.approvers[0]", '" "', "space"),
}  # fmt: skip

BINARY_CASES = {
    "13 floor in percent": ("at_least: 0.4", "at_least: 80", 29, "evaluation.floors[0].at_least", "80",
        "80 % is 0.8"),
    "slice floor in percent": ("at_least: 0.5", "at_least: 50", 31, "evaluation.slices[0].at_least", "50",
        "50 % is 0.5"),
    "negative floor": ("at_least: 0.4", "at_least: -0.4", 29, "evaluation.floors[0].at_least", "-0.4", "from 0 to 1"),
    "three classes": ('"Yes"]', '"Yes", "Maybe"]', 9, "data.classes", "", "two classes, not 3"),
    "no classes": ('  classes: ["No", "Yes"]\n', "", 5, "data.classes", "", "two classes, not 0"),
    "unquoted classes": ('["No", "Yes"]', "[No, Yes]", 9, "data.classes[0]", "No", 'quote it: "No"'),
    "numbers as classes": ('["No", "Yes"]', "[0, 1]", 9, "data.classes[0]", "0", 'Quote it: "0"'),
    "equal classes": ('["No", "Yes"]', '["No", "No"]', 9, "data.classes[1]", '"No"', "twice"),
    "two classes of many": ("task: binary", "task: multiclass", 9, "data.classes", "", "three classes or more"),
}  # fmt: skip

JOINED_CASES = {
    "typo in a key of a table": ("      time: valid_from", "      tme: valid_from", 22, "data.tables.accounts.tme", "valid_from",
        "Did you mean `time`?"),
    "table without keys": ("      keys: {depot: place}\n", "", 24, "data.tables.weather.keys", "", "Add it"),
    "table without columns": ("{country: country}", "{}", 32, "data.tables.people.columns", "", "at least 1"),
    "table name with a capital": ("    people:", "    People:", 29, "data.tables.People", "", "not a plain name"),
    "column of no feature": ("{rain: rain}", "{rane: rain}", 28, "data.tables.weather.columns.rane", "rain",
        "Did you mean `rain`?"),
    "feature of two tables": ("{country: country}", "{rain: country}", 32, "data.tables.people.columns.rain", "country",
        "from the table `weather` already"),
    "time without data.time": ("  time: asked_at\n", "", 21, "data.tables.accounts.time", "valid_from",
        "needs data.time"),
    "time among the keys": ("time: seen_at", "time: place", 27, "data.tables.weather.time", "place", "among the keys"),
    "time among the features": ("time: asked_at", "time: weight", 12, "data.features.weight", "number", "is the time"),
    "time is the entity": ("time: asked_at", "time: customer", 8, "data.time", "customer", "is the entity"),
    "target as key": ("{depot: place}", "{late: place}", 26, "data.tables.weather.keys.late", "place", "is the target"),
    "key that is a number": ("{depot: place}", "{weight: place}", 26, "data.tables.weather.keys.weight", "place",
        "keys are text"),
    "key of another table": ("{depot: place}", "{segment: place}", 26, "data.tables.weather.keys.segment", "place",
        "no column of the main table"),
    "data set of two tables": ("dataset: people", "dataset: parcels", 30, "data.tables.people.dataset", "parcels",
        "that of the main table as well"),
    "data set of two further tables": ("dataset: people", "dataset: weather", 30, "data.tables.people.dataset", "weather",
        "that of `weather` as well"),
    "columns that differ in capitals": ("{customer: who}", "{customer: Country}", 29, "data.tables.people", "",
        "differ only in capitals"),
    "published over its source": ("  target: late\n", "  target: late\n  publish: weather\n", 10, "data.publish", "weather",
        "Choose a new name"),
    "published without a name": ("  target: late\n", "  target: late\n  publish: A b\n", 10, "data.publish", "A b",
        "not a plain name"),
    "strata with data.time": ("training:", "tiers: {stratify_by: depot}\ntraining:", 33, "tiers.stratify_by", "depot",
        "does not go with data.time"),
    "strata of a further table": ("training:", "tiers: {stratify_by: country}\ntraining:", 33, "tiers.stratify_by",
        "country", "of the main table"),
}  # fmt: skip

STRATA_CASES = {
    "strata of a number": ("search:\n", "tiers: {stratify_by: rooms}\nsearch:\n", 21, "tiers.stratify_by", "rooms",
        "is a number"),
    "strata of the value to predict": ("search:\n", "tiers: {stratify_by: price}\nsearch:\n", 21, "tiers.stratify_by",
        "price", "is a number"),
    "strata of no column": ("search:\n", "tiers: {stratify_by: stret}\nsearch:\n", 21, "tiers.stratify_by", "stret",
        "Did you mean `street`?"),
    "strata of the entity": ("search:\n", "tiers: {stratify_by: house_id}\nsearch:\n", 21, "tiers.stratify_by", "house_id",
        "takes a category"),
}  # fmt: skip

UNREADABLE = {
    "1 empty": "",
    "2 bare text": "churn",
    "3 list": "- name: churn",
    "15 tab": GOOD.replace("  seed", "\tseed"),
    "16 python tag": GOOD.replace("seed: 7", "seed: !!python/object/apply:os.getpid []"),
    "17 alias bomb": GOOD.replace("trees: 100", "trees: &a [x, x]\n    b: &b [*a, *a]\n    c: &c [*b, *b]"),
    "18 3,000 deep": GOOD.replace("trees: 100", "trees: " + "[" * 3000 + "]" * 3000),
    "19 two documents": GOOD + "---\n" + GOOD,
    "20 Latin-1": GOOD.replace("house", "caf\xe9").encode("latin-1"),
    "21 recursive alias": GOOD.replace("trees: 100", "trees: &a [*a]"),
}
