"""Programs for one machine: the local stack and its processes, the warm process, the local SageMaker, the demo."""
