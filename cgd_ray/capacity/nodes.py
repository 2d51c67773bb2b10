"""EC2 types: what they cost an hour, and what their GPUs can do. Pure.

Prices are from memory, not checked: list prices on demand for Linux in us-east-1, and spot prices
as they are roughly seen there. Both change, spot within hours: `--assume usd.<type>=...` and
`--assume spot_usd.<type>=...` replace them. GPUs are as NVIDIA's data sheets say, dense bfloat16.
"""

from dataclasses import dataclass

PRICED_ON = "2026-11-23"


@dataclass(frozen=True, slots=True)
class NodePrice:
    """US dollars an hour."""

    on_demand: float
    spot: float


@dataclass(frozen=True, slots=True)
class Gpu:
    """What bounds an engine on one GPU."""

    name: str
    bytes_per_s: float  # of its memory
    flops: float  # a second
    num_bytes: float  # of memory


PRICES = {
    "c7i.xlarge": NodePrice(0.179, 0.08),
    "m7i.xlarge": NodePrice(0.202, 0.09),
    "c7i.2xlarge": NodePrice(0.357, 0.15),
    "m7i.2xlarge": NodePrice(0.403, 0.17),
    "c7i.4xlarge": NodePrice(0.714, 0.30),
    "m7i.4xlarge": NodePrice(0.806, 0.34),
    "c7i.8xlarge": NodePrice(1.428, 0.60),
    "m7i.8xlarge": NodePrice(1.613, 0.68),
    "m7i.16xlarge": NodePrice(3.226, 1.35),
    "g6.2xlarge": NodePrice(0.978, 0.45),
    "g6.12xlarge": NodePrice(4.602, 2.10),
    "g6e.2xlarge": NodePrice(2.242, 1.10),
    "g6e.12xlarge": NodePrice(10.493, 5.00),
    "g6e.48xlarge": NodePrice(30.131, 14.00),
    "p4d.24xlarge": NodePrice(21.96, 11.00),
    "p4de.24xlarge": NodePrice(27.45, 14.00),
    "p5.4xlarge": NodePrice(6.88, 3.20),
    "p5.48xlarge": NodePrice(55.04, 25.00),
    "p5en.48xlarge": NodePrice(63.30, 29.00),
}

_GPUS = {
    "g6": Gpu("L4", 300e9, 121e12, 22 * 2**30),
    "g6e": Gpu("L40S", 864e9, 362e12, 44 * 2**30),
    "p4d": Gpu("A100 40 GB", 1555e9, 312e12, 39 * 2**30),
    "p4de": Gpu("A100 80 GB", 2039e9, 312e12, 79 * 2**30),
    "p5": Gpu("H100", 3350e9, 989e12, 79 * 2**30),
    "p5en": Gpu("H200", 4800e9, 989e12, 139 * 2**30),
}


def gpu_of(instance: str) -> Gpu | None:
    """Return the GPU of an EC2 type; None if it has none."""
    return _GPUS.get(instance.partition(".")[0])
