"""A local SageMaker in front of moto: jobs and endpoints run the real container contract as processes.

`python -m ratchet sagemaker serve` starts it; docs/local-sagemaker.md lists how closely each operation matches AWS.
"""
