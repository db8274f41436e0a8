"""A local stand-in for an endpoint service: one process serves many models, by SageMaker's paths."""
