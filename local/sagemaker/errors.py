"""Errors of the local SageMaker: AWS error codes, and failure reasons of jobs and endpoints."""

from typing import Any


class ApiError(Exception):
    """An error response of the API: code, message, HTTP status, further members."""

    def __init__(self, code: str, message: str, status: int = 400, **more: Any) -> None:
        super().__init__(message)
        self.code, self.message, self.status, self.more = code, message, status, more


class ResourceFailure(Exception):
    """A job or an endpoint has failed; the text becomes its FailureReason."""


class NotImplementedLocally(ApiError):
    """A feature of AWS that is not implemented here. The local SageMaker never reports success for it."""

    def __init__(self, what: str) -> None:
        remedy = "see docs/local-sagemaker.md for what it implements"
        super().__init__("LocalSageMakerNotImplemented", f"the local SageMaker does not implement {what}; {remedy}")


def validation_error(message: str) -> ApiError:
    """Return the error of a request that breaks a rule of the API."""
    return ApiError("ValidationException", message)
