"""Third-party clients of the local SageMaker: AWS's SDK, its toolkit, and MLflow's deployment plugin work with it."""

import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.sagemaker.settings import Image
from tests.fixtures.local_aws import ROLE, SageMakerLab, local_aws

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # warnings of their libraries are not ours
TOOLKIT = os.environ.get("RATCHET_TOOLKIT_PYTHON", sys.executable)
"""An interpreter whose environment has `sagemaker-training`: it needs a compiler, and is in no lock file."""


def needs(module: str) -> None:
    """Skip the test where a client is not installed."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed (extra `aws`)")


@pytest.fixture
def pointed(desk: SageMakerLab, monkeypatch: pytest.MonkeyPatch) -> Iterator[SageMakerLab]:
    """Point every AWS client of this process at the local SageMaker, by the variables that it prints."""
    variables = {
        "AWS_ENDPOINT_URL": desk.server.url,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REGION": "us-east-1",
        "SAGEMAKER_VALIDATE_ROLE": "false",  # ModelTrainer asks IAM to simulate policies, which moto cannot do
        "MLFLOW_S3_ENDPOINT_URL": desk.server.url,
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    yield desk


def test_sagemaker_core_trains_deploys_and_invokes(pointed: SageMakerLab) -> None:
    needs("sagemaker.core")
    from sagemaker.core.resources import Endpoint, EndpointConfig, Model, TrainingJob
    from sagemaker.core.shapes import (
        AlgorithmSpecification,
        ContainerDefinition,
        OutputDataConfig,
        ProductionVariant,
        ResourceConfig,
        StoppingCondition,
    )

    job = TrainingJob.create(
        training_job_name="core-job",
        role_arn=ROLE,
        algorithm_specification=AlgorithmSpecification(training_image="tiny", training_input_mode="File"),
        environment={"PROGRAM": "open('/opt/ml/model/m', 'w').write('made')"},
        output_data_config=OutputDataConfig(s3_output_path=f"s3://{pointed.bucket}/core"),
        resource_config=ResourceConfig(instance_type="ml.m6i.large", instance_count=1, volume_size_in_gb=1),
        stopping_condition=StoppingCondition(max_runtime_in_seconds=60),
    )
    job.wait(poll=1)
    assert job.training_job_status == "Completed"
    assert job.model_artifacts.s3_model_artifacts.endswith("/core-job/output/model.tar.gz")

    address = pointed.put("core/model/answers.json", json.dumps({"requests": {"*": ["core"]}})).rpartition("/")[0] + "/"
    source = {"s3_data_source": {"s3_uri": address, "s3_data_type": "S3Prefix", "compression_type": "None"}}
    Model.create(model_name="core-model", execution_role_arn=ROLE,
                 primary_container=ContainerDefinition(image="tiny", model_data_source=source))  # fmt: skip
    variant = ProductionVariant(variant_name="AllTraffic", model_name="core-model", initial_instance_count=1,
                                instance_type="ml.m6i.large", initial_variant_weight=1.0)  # fmt: skip
    EndpointConfig.create(endpoint_config_name="core-config", production_variants=[variant])
    endpoint = Endpoint.create(endpoint_name="core-endpoint", endpoint_config_name="core-config")
    endpoint.wait_for_status("InService", poll=1)
    answer = endpoint.invoke(body=b"anything", content_type="application/json")
    assert json.loads(answer.body.read()) == {"predictions": ["core"]}
    endpoint.delete()


def test_the_sdks_model_trainer_runs_its_own_scripts_in_the_container(pointed: SageMakerLab, tmp_path: Path) -> None:
    needs("sagemaker.train")
    if not pointed.server.operations.containers.namespaces:
        pytest.skip("ModelTrainer's scripts have /opt/ml written into them, which needs a mount namespace")
    from sagemaker.core.helper.session_helper import Session
    from sagemaker.core.training.configs import Compute, OutputDataConfig, SourceCode, StoppingCondition
    from sagemaker.train import ModelTrainer

    (tmp_path / "train.py").write_text(
        "import os, sys, pathlib\nprint('called with', sys.argv[1:])\n"
        "pathlib.Path(os.environ['SM_MODEL_DIR'], 'm').write_text('made')\n"
    )
    trainer = ModelTrainer(
        sagemaker_session=Session(default_bucket=pointed.bucket),  # otherwise it calls STS at another address
        training_image="tiny",
        role=ROLE,
        base_job_name="sdk-job",
        source_code=SourceCode(source_dir=str(tmp_path), entry_script="train.py"),
        compute=Compute(instance_type="ml.m6i.large", instance_count=1, volume_size_in_gb=1),
        stopping_condition=StoppingCondition(max_runtime_in_seconds=120),
        output_data_config=OutputDataConfig(s3_output_path=f"s3://{pointed.bucket}/sdk"),
        hyperparameters={"rounds": 3},
    )
    trainer.train(wait=False)
    summary = pointed.sagemaker.list_training_jobs(NameContains="sdk-job")["TrainingJobSummaries"][0]
    job = pointed.trained(summary["TrainingJobName"], 90)
    said = "\n".join(pointed.log_of(job["TrainingJobName"]))
    assert job["TrainingJobStatus"] == "Completed", f"{job.get('FailureReason')}\n{said}"
    assert "--rounds 3" in said


def test_mlflows_plugin_deploys_predicts_and_deletes(pointed: SageMakerLab, tmp_path: Path) -> None:
    needs("mlflow")
    from mlflow.deployments import get_deploy_client

    from tests.fixtures.scoring import frame, python_code_model

    model = python_code_model(tmp_path / "model")
    (model / "answers.json").write_text(json.dumps({"requests": {"*": [0.5, 0.5]}}))
    plugin = get_deploy_client("sagemaker:/us-east-1")
    config = {
        "execution_role_arn": ROLE, "bucket": pointed.bucket, "image_url": "tiny", "instance_type": "ml.m5.large",
        "instance_count": 1, "synchronous": True, "timeout_seconds": 60, "region_name": "us-east-1",
    }  # fmt: skip
    plugin.create_deployment("from-mlflow", str(model), flavor="python_function", config=config)
    answer: Any = plugin.predict("from-mlflow", frame())
    assert json.loads(answer.to_json())["predictions"] == [0.5, 0.5]
    assert "from-mlflow" in [each["EndpointName"] for each in plugin.list_deployments()]
    plugin.delete_deployment("from-mlflow", config={"archive": False, "region_name": "us-east-1"})


def test_awss_training_toolkit_runs_unmodified_as_the_image(tmp_path: Path) -> None:
    toolkit = Path(TOOLKIT).parent / "train"
    if not toolkit.exists():
        pytest.skip("sagemaker-training is not installed; name its interpreter in RATCHET_TOOLKIT_PYTHON")
    image = Image("toolkit", train=(str(toolkit),), environment={"SM_STUDIO_LOCAL_MODE": "true"})
    with local_aws(tmp_path / "state", more=(image,)) as server:
        desk = SageMakerLab(server)
        channel = {"S3DataType": "S3Prefix", "S3DataDistributionType": "FullyReplicated"}
        program = "import os\nopen(os.environ['SM_MODEL_DIR'] + '/m', 'w').write('made')\nprint(os.environ['SM_HPS'])\n"
        uri = desk.put("code/train.py", program).rpartition("/")[0] + "/"
        desk.train(
            "toolkit-job", "", algorithm={"TrainingImage": "toolkit"},
            HyperParameters={"sagemaker_program": '"train.py"', "rounds": "3",
                             "sagemaker_submit_directory": '"/opt/ml/input/data/code"'},
            InputDataConfig=[{"ChannelName": "code", "DataSource": {"S3DataSource": {**channel, "S3Uri": uri}}}],
        )  # fmt: skip
        job = desk.trained("toolkit-job", 90)
        said = "\n".join(desk.log_of("toolkit-job"))
        assert job["TrainingJobStatus"] == "Completed", f"{job.get('FailureReason')}\n{said}"
        assert '"rounds":3' in said.replace(" ", "")
