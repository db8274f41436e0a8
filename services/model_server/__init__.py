"""A local endpoint service: one process serves many models, by SageMaker's paths."""
