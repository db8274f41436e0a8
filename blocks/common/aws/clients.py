"""Clients of AWS, and AWS's errors as the ports' errors: the code alone decides whether it is tried again."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

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


def aws_client(service: str, region: str | None, endpoint_url: str | None) -> Any:
    """Return a client that tries again by itself, for about half a minute, what AWS asks to be tried again.

    Who may do what is the credentials' matter: boto3's usual chain. A client takes a quarter of a second to make, is
    safe among threads, and is made once a process.
    """
    return _cached_client(service, region or None, endpoint_url or None, os.getpid())


def short_timeout_client(service: str, region: str | None, endpoint_url: str | None) -> Any:
    """Return a client for what nobody may wait for: it tries twice, and gives up within seconds."""
    return _cached_client(service, region or None, endpoint_url or None, os.getpid(), hasty=True)


def region_name(region: str | None) -> str:
    """Return the region that a client would work in: the given one, or boto3's own choice; "" when there is none."""
    import boto3

    return region or boto3.Session().region_name or ""


@cache
def _cached_client(
    service: str, region: str | None, endpoint_url: str | None, process: int, *, hasty: bool = False
) -> Any:
    import boto3
    from botocore.config import Config

    retries: Any = {"mode": "standard", "total_max_attempts": 2 if hasty else 7}
    seconds = {"connect_timeout": 2, "read_timeout": 5} if hasty else {"connect_timeout": 10, "read_timeout": 70}
    config = Config(retries=retries, max_pool_connections=16, **seconds)
    return boto3.client(service, region_name=region, endpoint_url=endpoint_url, config=config)


@contextmanager
def port_errors(action: str) -> Iterator[None]:
    """Turn what AWS answers into the ports' errors; `action` ("describing job churn-1") begins their message."""
    from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError

    try:
        yield
    except PortError:
        raise
    except ClientError as cause:
        raise _port_error(action, cause) from cause
    except (HTTPClientError, ConnectionError) as cause:  # no connection, no answer in time
        raise Unavailable(f"{action}: {cause}. Look at the network and the endpoint's address.") from cause
    except BotoCoreError as cause:  # no credentials, no region, a request that is none
        raise Rejected(f"{action}: {cause}") from cause


def error_code(error: "ClientError") -> str:
    """Return AWS's code of an error, such as ThrottlingException."""
    return str(error.response.get("Error", {}).get("Code", ""))


def is_missing(error: "ClientError") -> bool:
    """Whether the thing that was named is not there: SageMaker says so with a ValidationException."""
    said = str(error.response.get("Error", {}).get("Message", "")).lower()
    return error_code(error) in _NOT_FOUND_CODES or (
        error_code(error) == "ValidationException" and _message_says_missing(said)
    )


def _message_says_missing(message: str) -> bool:
    return "not found" in message or "could not find" in message or "does not exist" in message


def _port_error(doing: str, cause: "ClientError") -> PortError:
    status = int(cause.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if error_code(cause) in _TRANSIENT_CODES or status >= 500 or status == 429:
        return Unavailable(f"{doing}: {cause}. Try again.")
    if error_code(cause) in _QUOTA_CODES:
        return Rejected(f"{doing}: {cause}. Ask for a higher quota (Service Quotas), or name another instance type.")
    if error_code(cause) in _PERMISSION_CODES:
        return Rejected(f"{doing}: {cause}. Give these credentials the right to it.")
    if is_missing(cause):
        return NotFound(f"{doing}: {cause}")
    return Rejected(f"{doing}: {cause}")
