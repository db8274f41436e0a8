"""The local model server: one process serves many models under SageMaker's URL paths."""
