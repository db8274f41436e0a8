"""Turn Terraform's outputs, as `terraform output -json` prints them, into an environment's file.

The file has variables for what is secret or not Terraform's to know: the image, the ledger's address and, unless
SageMaker manages it, MLflow's.
"""

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from blocks.common.errors import Conflict, Rejected
from runtime.files import write_text_atomically

FOLDER = Path(__file__).resolve().parents[1] / "environments"
REQUIRED_OUTPUTS = ("environment", "region", "bucket", "jobs_role_arn", "tracking_uri", "log_group")
ENVIRONMENT_TEMPLATE = """\
# Written by `python -m ratchet environment write` from Terraform's outputs. Save it with
# `python -m ratchet register {environment}`; the variables in braces are filled in from that command's environment.
scratch = "${{RATCHET_STATE}}/{environment}"
evidence_root = "${{RATCHET_STATE}}/{environment}/evidence"

[lake]
adapter = "blocks.lake.s3.S3Lake"
bucket = "{bucket}"
prefix = "lake"
region = "{region}"

[engine]
adapter = "blocks.engines.duckdb.DuckDBEngine"
s3_region = "{region}"

[trainer]
adapter = "blocks.trainers.sagemaker.SageMakerTrainer"
bucket = "{bucket}"
prefix = "training"
role_arn = "{jobs_role_arn}"
image = "${{RATCHET_IMAGE}}"
instance_types = ["ml.m5.large"]
region = "{region}"
model_cache = "${{RATCHET_STATE}}/{environment}/jobs"
tags = {{ "ratchet:environment" = "{environment}" }}

[small_trainer]    # trainings of at most `budget.local_rows` rows, in the flow run's own task
adapter = "blocks.trainers.local.LocalTrainer"
root = "${{RATCHET_STATE}}/{environment}/small-jobs"
isolation = "bubblewrap"    # without user namespaces (Fargate) leave this table out: SageMaker trains in a container

[endpoint]
adapter = "blocks.endpoints.sagemaker.SageMakerEndpoint"
bucket = "{bucket}"
prefix = "releases"
role_arn = "{jobs_role_arn}"
image = "${{RATCHET_IMAGE}}"
instance_type = "ml.m5.large"
trusted_keys = ["${{RATCHET_MODELS_KEY}}"]
region = "{region}"
tags = {{ "ratchet:environment" = "{environment}" }}

[batch_inference]  # batch predictions of many rows; set the four figures for your machines (docs/batch-inference.md)
adapter = "blocks.batch_inference.sagemaker.SageMakerBatchInference"
bucket = "{bucket}"
role_arn = "{jobs_role_arn}"
image = "${{RATCHET_IMAGE}}"
instance_type = "ml.m5.large"
instance_count = 4
rows_per_second = 50_000.0
local_rows_per_second = 30_000.0
max_usd_per_hour_saved = 1.0
trusted_keys = ["${{RATCHET_MODELS_KEY}}"]
region = "{region}"
tags = {{ "ratchet:environment" = "{environment}" }}

[logs]             # what flow runs say, beside Prefect's own log
group = "{log_group}"
region = "{region}"

[cloud_cleanup]    # for garbage collection; include_unassigned: only one environment of Ratchet lives in the account
adapter = "blocks.cloud_cleanup.sagemaker.SageMakerCleanup"
bucket = "{bucket}"
region = "{region}"
include_unassigned = false

[tracking]
adapter = "blocks.tracking.mlflow.MlflowTracking"
tracking_uri = "{tracking}"
trusted_keys = ["${{RATCHET_MODELS_KEY}}"]

[ledger]
adapter = "blocks.database.ledger.SqlLedger"
url = "${{RATCHET_LEDGER_URL}}"

[signing]          # where people decide and where models are trained hold the private keys; docs/approvals.md
decisions_key = "${{RATCHET_STATE}}/keys/decisions.pem"
decisions_head_file = "${{RATCHET_STATE}}/keys/decisions.head"
trusted_decision_keys = ["${{RATCHET_DECISIONS_KEY}}"]
records_key = "${{RATCHET_STATE}}/keys/records.pem"
records_head_file = "${{RATCHET_STATE}}/keys/records.head"
trusted_record_keys = ["${{RATCHET_RECORDS_KEY}}"]
models_key = "${{RATCHET_STATE}}/keys/models.pem"
trusted_model_keys = ["${{RATCHET_MODELS_KEY}}"]

[sources]          # what ingest and batch inference may read; add your buckets and hosts of databases (docs/ingest.md)
buckets = ["{bucket}/incoming"]

[approval]
approvals = 1
require_authentication = true
"""


def read_outputs(text: str) -> dict[str, str]:
    """Return the outputs that an environment needs.

    Raises:
        Rejected: the text is not the output of `terraform output -json`, an output is missing, or an output contains
            characters that would be parsed as TOML or as a variable.
    """
    try:
        outputs = {name: entry["value"] for name, entry in json.loads(text).items()}
    except (ValueError, AttributeError, TypeError, KeyError) as cause:
        raise Rejected(f"the input is not the output of `terraform output -json`: {cause}") from cause
    if missing := [name for name in REQUIRED_OUTPUTS if not isinstance(outputs.get(name), str)]:
        raise Rejected(f"the outputs lack {', '.join(missing)}; run `terraform apply` first")
    found = {name: str(outputs[name]) for name in REQUIRED_OUTPUTS}
    strange = [name for name, value in found.items() if not re.fullmatch(r"[\w.:/-]*", value)]
    empty = [name for name in REQUIRED_OUTPUTS if not found[name] and name != "tracking_uri"]
    if strange or empty:
        raise Rejected(f"the outputs {', '.join(strange + empty)} are not a name, an ARN or an address")
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,62}", found["environment"]):
        raise Rejected(
            f"the environment's name {found['environment']!r} is not a small letter, then letters, digits, -"
        )
    return found


def environment_toml(outputs: Mapping[str, str]) -> str:
    """Return the environment's file."""
    tracking = outputs["tracking_uri"] or "${RATCHET_MLFLOW_URL}"
    text = ENVIRONMENT_TEMPLATE.format(**outputs, tracking=tracking)
    tomllib.loads(text)
    return text


def write_environment(outputs: Mapping[str, str], folder: Path, *, force: bool) -> Path:
    """Write the file in `folder`. Raises Conflict when it exists with other content and `force` is not given."""
    path, text = folder / f"{outputs['environment']}.toml", environment_toml(outputs)
    if path.exists() and path.read_text(encoding="utf-8") != text and not force:
        raise Conflict(f"{path.name} exists with other content; check it, then repeat with --force")
    write_text_atomically(path, text)
    return path
