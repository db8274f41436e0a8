"""The infrastructure: formatted, valid and as its own tests expect; moto shows that it is created, found and destroyed.

The tests need the terraform program and its AWS provider: from a mirror of packages in the usual places (or
`$RATCHET_TERRAFORM_MIRROR`), else from the registry. Where these are missing, the tests say so. Creating everything
against moto takes two to four minutes, so it runs by `make terraform`, not in CI.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from deployments.aws.settings import read_outputs
from tests.checkout import ROOT

AWS = ROOT / "deployments" / "aws"
TERRAFORM = shutil.which("terraform")
MIRRORS = ("~/.terraform.d/plugins", "/usr/local/share/terraform/plugins", "/usr/share/terraform/plugins")
PROVIDER = "registry.terraform.io/hashicorp/aws"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(TERRAFORM is None, reason="the terraform program is not on this machine"),
]


def terraform(folder: Path, *arguments: str, seconds: float = 300) -> "subprocess.CompletedProcess[str]":
    own = {"TF_CLI_CONFIG_FILE": os.devnull, "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"}
    own |= {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_EC2_METADATA_DISABLED": "true"}
    return subprocess.run(
        [str(TERRAFORM), *arguments], cwd=folder, env={**os.environ, **own},
        capture_output=True, text=True, timeout=seconds, check=False,
    )  # fmt: skip


def mirror() -> list[str]:
    """Return the option that names a folder with the provider, or no option for the registry."""
    places = [os.environ.get("RATCHET_TERRAFORM_MIRROR", ""), *MIRRORS, *map(str, Path("/opt").glob("*"))]
    found = (Path(place).expanduser() for place in places if place)
    return next(([f"-plugin-dir={place}"] for place in found if (place / PROVIDER).is_dir()), [])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the configuration, initialised."""
    copy = tmp_path_factory.mktemp("terraform") / "aws"
    shutil.copytree(AWS, copy, ignore=shutil.ignore_patterns(".terraform*", "*.py", "__pycache__"))
    made = terraform(copy, "init", "-backend=false", "-input=false", "-no-color", *mirror(), seconds=120)
    if made.returncode:
        pytest.skip(f"the AWS provider cannot be had here: {made.stderr.strip()[:200]}")
    return copy


def test_the_configuration_is_formatted() -> None:
    done = terraform(AWS, "fmt", "-check", "-recursive", "-diff")
    assert done.returncode == 0, done.stdout


def test_the_configuration_is_valid_and_as_its_own_tests_say(folder: Path) -> None:
    """`terraform test` validates first: the provider knows every resource and argument."""
    done = terraform(folder, "test", "-no-color")
    assert done.returncode == 0 and "0 failed" in done.stdout, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.fixture
def moto() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def network(url: str) -> tuple[str, str, str]:
    """Create the VPC, subnet and security group that a team already has, and return their ids."""
    ec2 = boto3.client(
        "ec2", "us-east-1", endpoint_url=url, aws_access_key_id="testing", aws_secret_access_key="testing"  # noqa: S106 - no secret
    )  # fmt: skip
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
    return vpc, subnet, ec2.create_security_group(GroupName="flows", Description="flows", VpcId=vpc)["GroupId"]


@pytest.mark.skipif(
    not os.environ.get("RATCHET_TERRAFORM_APPLY"), reason="takes two to four minutes; run: make terraform"
)
@pytest.mark.timeout(600)
def test_against_moto_it_is_made_found_unchanged_and_removed(folder: Path, moto: str) -> None:
    """Includes the worker and MLflow's service; moto has no budgets and no managed MLflow."""
    vpc, subnet, group = network(moto)
    variables = [
        "-var=region=us-east-1", f"-var=endpoint={moto}", "-var=monthly_budget_usd=200", f'-var=subnets=["{subnet}"]',
        f'-var=security_groups=["{group}"]', "-var=prefect_api_url=https://prefect.example.com/api",
        "-var=mlflow_database_secret_arn=arn:aws:secretsmanager:us-east-1:123456789012:secret:mlflow",
        "-var=alert_email=team@example.com", f"-var=vpc_id={vpc}",
    ]  # fmt: skip
    quiet = ["-input=false", "-no-color"]
    made = terraform(folder, "apply", "-auto-approve", *quiet, *variables)
    assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-3000:]
    again = terraform(folder, "plan", "-detailed-exitcode", *quiet, *variables)
    assert again.returncode == 0, again.stdout[-3000:] + again.stderr[-2000:]
    outputs = terraform(folder, "output", "-json").stdout
    assert read_outputs(outputs)["bucket"] == "ratchet-production-123456789012"
    assert read_outputs(outputs)["tracking_uri"] == "http://mlflow.ratchet-production.internal:5000"
    assert json.loads(outputs)["work_pool"]["value"] == "ratchet-production"
    gone = terraform(folder, "destroy", "-auto-approve", *quiet, *variables)
    assert gone.returncode == 0 and "Destroy complete" in gone.stdout, gone.stdout[-2000:] + gone.stderr[-3000:]
