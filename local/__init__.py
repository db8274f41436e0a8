"""The laptop: the embedded stack and its processes, the warm process, the local SageMaker, the demo."""
