"""How the local SageMaker says no: AWS's error codes, and why a job or endpoint ended."""

from typing import Any


class ApiError(Exception):
    """An answer that is an error of the API: its code, its message, its HTTP status, further members."""

    def __init__(self, code: str, message: str, status: int = 400, **more: Any) -> None:
        super().__init__(message)
        self.code, self.message, self.status, self.more = code, message, status, more


class ResourceFailure(Exception):
    """A job or a deployment cannot go on; the text becomes its FailureReason."""


class NotImplementedLocally(ApiError):
    """AWS may know this, the local SageMaker does not: it never answers with success what it did not do."""

    def __init__(self, what: str) -> None:
        remedy = "docs/local-sagemaker.md lists what it does"
        super().__init__("LocalSageMakerNotImplemented", f"the local SageMaker does not implement {what}; {remedy}")


def validation_error(message: str) -> ApiError:
    """Return the error of a request that breaks a rule of the API."""
    return ApiError("ValidationException", message)
