"""vLLM's logits for fixed tokens, for one model folder after another in one process.

Run as a script: `python engine_logits.py JOB.json OUT.npz` where the job is
`{"dtype": ..., "prompts": {FOLDER: [token, ...]}}`. The result has one array a folder, in order:
row t holds the logits, over the vocabulary, that predict token t + 1.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cgd_ray.sampling.engine import engine_environment

LIMIT_S = 300


def engine_logits(prompts: Mapping[Path, Sequence[int]], dtype: str) -> dict[Path, np.ndarray]:
    """Return for each folder the engine's logits before every token but the first, (T - 1, V)."""
    job = {"dtype": dtype, "prompts": {str(f): list(ids) for f, ids in prompts.items()}}
    environment = {
        **os.environ,
        **engine_environment(1, on_gpu=False),
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine in this process: seconds less each
        "HF_HUB_OFFLINE": "1",
    }
    with tempfile.TemporaryDirectory() as folder:
        task, out = Path(folder) / "job.json", Path(folder) / "out.npz"
        task.write_text(json.dumps(job))
        done = subprocess.run(
            [sys.executable, __file__, str(task), str(out)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
        with np.load(out) as arrays:
            return {path: arrays[f"arr_{i}"] for i, path in enumerate(prompts)}


def main(job: str, out: str) -> None:
    from vllm import LLM, SamplingParams
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    work = json.loads(Path(job).read_text())
    asked = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=-1, detokenize=False)
    found: list[np.ndarray] = []
    for folder, ids in work["prompts"].items():
        engine = LLM(
            folder,
            dtype=work["dtype"],
            max_model_len=256,
            max_num_seqs=1,
            enforce_eager=True,
            enable_prefix_caching=False,
            logprobs_mode="raw_logits",
            max_logprobs=-1,
            disable_log_stats=True,
        )
        answer = engine.generate([{"prompt_token_ids": ids}], asked, use_tqdm=False)[0]
        places = answer.prompt_logprobs[1:]
        found.append(np.array([[p[token].logprob for token in range(len(p))] for p in places]))
        del engine, answer, places
        cleanup_dist_env_and_memory()  # an engine with experts needs groups of its own
    np.savez(out, *found)


if __name__ == "__main__":
    main(*sys.argv[1:])
