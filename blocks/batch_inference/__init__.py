"""Batch predictions on machines of their own: the port, its adapter for SageMaker, and its fake."""
