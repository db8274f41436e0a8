"""SageMaker on this machine, in front of moto: jobs and endpoints run the real container contract as processes.

`python -m ratchet sagemaker serve` starts it; docs/local-sagemaker.md says how faithful each operation is.
"""
