"""What runs inside the container: `train` and `serve`, by the SageMaker contract, importing nothing of ours."""
