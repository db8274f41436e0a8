"""Records of what paid work will ask for, before it starts: enough to know what it may cost at worst."""

from dataclasses import dataclass

HOURS_PER_MONTH = 730.0
"""Hours of a month as AWS counts them: 365 days of 24 hours, divided by 12."""


@dataclass(frozen=True)
class Compute:
    """Compute of one training job. The default is this machine, which costs nothing.

    Attributes:
        instance_types: instance types that may run it ("ml.m5.xlarge"), in order of preference; empty: this machine.
        region: region as the price table writes it ("eu-central-1"); "" on this machine.
        instance_count: how many instances run at once.
        max_seconds: limit of the run time; the service bills at most this long.
        keep_alive_seconds: how long the instances stay allocated, and billed, after the job: a warm pool.
        spot: whether the job may be interrupted; the worst case is still the full price.
    """

    instance_types: tuple[str, ...] = ()
    region: str = ""
    instance_count: int = 1
    max_seconds: int = 0
    keep_alive_seconds: int = 0
    spot: bool = False


@dataclass(frozen=True)
class EndpointCompute:
    """Compute of one endpoint. The default is this machine, which costs nothing.

    Attributes:
        instance_type: instance type ("ml.m5.large"); "" is this machine.
        region: region as the price table writes it; "" on this machine.
        instance_count: maximum number of instances that run at once, including those that autoscaling may add.
        hours_per_month: how long the endpoint serves; one that is never stopped serves 730 hours.
    """

    instance_type: str = ""
    region: str = ""
    instance_count: int = 1
    hours_per_month: float = HOURS_PER_MONTH
