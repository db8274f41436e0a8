"""What paid work asks for, said before it is asked: enough to know what it may cost at worst."""

from dataclasses import dataclass

HOURS_PER_MONTH = 730.0
"""How AWS counts a month: 365 days of 24 hours, by 12."""


@dataclass(frozen=True)
class Compute:
    """What one training job will ask for. As it is by default: this machine, which costs nothing.

    Attributes:
        instance_types: what may run it ("ml.m5.xlarge"), in order of preference; empty is this machine.
        region: where, as the price table writes it ("eu-central-1"); "" on this machine.
        instance_count: how many instances run at once.
        max_seconds: the longest that the service may bill the job for: its limit of run time.
        keep_alive_seconds: how long the instances are kept, and billed, after it: a warm pool.
        spot: whether it may be interrupted; the worst case is still the full price.
    """

    instance_types: tuple[str, ...] = ()
    region: str = ""
    instance_count: int = 1
    max_seconds: int = 0
    keep_alive_seconds: int = 0
    spot: bool = False


@dataclass(frozen=True)
class EndpointCompute:
    """What serving one model will ask for. As it is by default: this machine, which costs nothing.

    Attributes:
        instance_type: what serves it ("ml.m5.large"); "" is this machine.
        region: where, as the price table writes it; "" on this machine.
        instance_count: the most instances that may run at once, those that scaling may add included.
        hours_per_month: how long it serves; an endpoint that is never stopped serves 730 hours.
    """

    instance_type: str = ""
    region: str = ""
    instance_count: int = 1
    hours_per_month: float = HOURS_PER_MONTH
