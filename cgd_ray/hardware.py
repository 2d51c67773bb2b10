"""What machine a figure was measured on."""

import os
import platform
from pathlib import Path


def hardware() -> tuple[str, str]:
    """Return a short name for file names, and a description, of this machine."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    cpu = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), "CPU")
    flags = next((x for x in lines if x.startswith("flags")), "")
    amx = ", AMX bf16" if "amx_bf16" in flags else ""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    count = os.cpu_count() or 1
    gpus = _gpus()
    name = f"{len(gpus)}gpu" if gpus else f"{count}cpu"
    more = f"{len(gpus)} x {gpus[0]}" if gpus else "no GPU"
    return name, f"{count} x {cpu}{amx}, {memory:.0f} GiB, {platform.machine()}, {more}"


def _gpus() -> list[str]:
    """Return the models of the NVIDIA GPUs that the kernel's driver knows."""
    files = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
