"""boto3 clients, and the translation of AWS errors into port errors.

The AWS error code alone decides whether a call is retried.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field, PrivateAttr

from blocks.common.errors import NotFound, PortError, Rejected, Unavailable

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

_TRANSIENT_CODES = {
    "Throttling", "ThrottlingException", "ThrottledException", "TooManyRequestsException", "RequestLimitExceeded",
    "RequestThrottled", "SlowDown", "PriorRequestNotComplete", "RequestTimeout", "RequestTimeoutException",
    "InternalFailure", "InternalError", "InternalServerError", "ServiceUnavailable", "ServiceUnavailableException",
    "CapacityError", "InsufficientInstanceCapacity",
}  # fmt: skip
_QUOTA_CODES = {"ResourceLimitExceeded", "LimitExceededException", "ServiceQuotaExceededException"}
_PERMISSION_CODES = {
    "AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403", "InvalidClientTokenId", "ExpiredToken",
    "ExpiredTokenException", "InvalidAccessKeyId", "SignatureDoesNotMatch", "UnrecognizedClientException",
}  # fmt: skip
_NOT_FOUND_CODES = {"NoSuchBucket", "NoSuchKey", "404", "NotFound", "ResourceNotFound", "ResourceNotFoundException"}

_MISSING_TEXTS = ("not found", "could not find", "does not exist", "cannot be stopped", "in a terminal")


def aws_client(service: str, region: str | None, endpoint_url: str | None, *, short_timeout: bool = False) -> Any:
    """Return a boto3 client that retries throttled and failed calls for about 30 seconds.

    With `short_timeout` there are two attempts, and an error comes within seconds. Credentials come from boto3's
    default chain. The client is thread-safe and cached per process; creating one takes about 0.25 s.
    """
    return _cached_client(service, region or None, endpoint_url or None, os.getpid(), short_timeout)


class AwsClients(BaseModel):
    """The boto3 clients of a block, for its region and endpoint URL."""

    region: str | None = Field(default=None, description="AWS region; None: boto3's default.")
    endpoint_url: str | None = Field(default=None, description="Endpoint URL of the local SageMaker; None: AWS.")

    _clients: dict[str, Any] = PrivateAttr(default_factory=dict)

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = aws_client(service, self.region, self.endpoint_url)
        return self._clients[service]


def region_name(region: str | None) -> str:
    """Return the region that a client would use: the given one, or boto3's default; "" if there is none."""
    import boto3

    return region or boto3.Session().region_name or ""


@cache
def _cached_client(
    service: str, region: str | None, endpoint_url: str | None, process: int, short_timeout: bool
) -> Any:
    import boto3
    from botocore.config import Config

    retries: Any = {"mode": "standard", "total_max_attempts": 2 if short_timeout else 7}
    timeouts = (
        {"connect_timeout": 2, "read_timeout": 5} if short_timeout else {"connect_timeout": 10, "read_timeout": 70}
    )
    config = Config(retries=retries, max_pool_connections=16, **timeouts)
    return boto3.client(service, region_name=region, endpoint_url=endpoint_url, config=config)


@contextmanager
def port_errors(action: str) -> Iterator[None]:
    """Translate AWS errors into port errors. `action` (such as "describing job churn-1") starts their message."""
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        ConnectionError,
        CredentialRetrievalError,
        HTTPClientError,
        MetadataRetrievalError,
    )

    try:
        yield
    except PortError:
        raise
    except ClientError as cause:
        raise _port_error(action, cause) from cause
    except (HTTPClientError, ConnectionError) as cause:  # no connection, or no response in time
        raise Unavailable(f"{action}: {cause}. Check the network and the endpoint's URL.") from cause
    except (CredentialRetrievalError, MetadataRetrievalError) as cause:  # the instance's service is busy
        raise Unavailable(f"{action}: {cause}") from cause
    except BotoCoreError as cause:  # no credentials, no region, an invalid request
        raise Rejected(f"{action}: {cause}") from cause


def error_code(error: "ClientError") -> str:
    """Return the AWS error code, such as ThrottlingException."""
    return str(error.response.get("Error", {}).get("Code", ""))


def is_missing(error: "ClientError") -> bool:
    """Return whether the resource does not exist or has ended. SageMaker reports this as a ValidationException."""
    message = str(error.response.get("Error", {}).get("Message", "")).lower()
    return error_code(error) in _NOT_FOUND_CODES or (
        error_code(error) == "ValidationException" and any(text in message for text in _MISSING_TEXTS)
    )


def response_or_none(call: Callable[..., Any], **arguments: Any) -> Any:
    """Return the response of a boto3 call, or None if the resource does not exist."""
    from botocore.exceptions import ClientError

    try:
        return call(**arguments)
    except ClientError as error:
        if is_missing(error):
            return None
        raise


@contextmanager
def ignored_errors(*codes: str) -> Iterator[None]:
    """Ignore AWS errors with these codes."""
    from botocore.exceptions import ClientError

    try:
        yield
    except ClientError as error:
        if error_code(error) not in codes:
            raise


def _port_error(action: str, cause: "ClientError") -> PortError:
    status = int(cause.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if error_code(cause) in _TRANSIENT_CODES or status >= 500 or status == 429:
        return Unavailable(f"{action}: {cause}. Try again.")
    if error_code(cause) in _QUOTA_CODES:
        return Rejected(f"{action}: {cause}. Request a higher quota (Service Quotas), or use another instance type.")
    if error_code(cause) in _PERMISSION_CODES:
        return Rejected(f"{action}: {cause}. Grant these credentials the permission.")
    if is_missing(cause):
        return NotFound(f"{action}: {cause}")
    return Rejected(f"{action}: {cause}")
