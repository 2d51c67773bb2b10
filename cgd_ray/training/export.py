"""The trained student as a Hugging Face folder in the store."""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch.distributed as dist
from transformers import AutoTokenizer

from cgd_ray.store import MissingKey, Store
from cgd_ray.training import checkpoint as states
from cgd_ray.training.lora import merged
from cgd_ray.training.task import TrainTask


def is_exported(store: Store, stage_folder: str) -> bool:
    """Return whether the trained student is in the store, whole."""
    try:
        store.get(f"{stage_folder}/model.json")
    except MissingKey:
        return False
    return True


def export_model(engine: Any, store: Store, task: TrainTask) -> None:  # noqa: ANN401
    """Write the trained student as a Hugging Face folder of safetensors, with its tokenizer."""
    if task.train.zero_stage == 3:
        weights = engine._zero3_consolidated_16bit_state_dict()
    else:
        weights = engine.module.state_dict()
    if dist.get_rank() == 0:
        if task.train.lora.rank:
            weights = merged(weights, task.train.lora)
        with tempfile.TemporaryDirectory(prefix="cgd-model-") as temporary:
            folder = Path(temporary)
            model = engine.module
            if model.config.tie_word_embeddings:
                weights.pop("lm_head.weight", None)
            model.save_pretrained(folder, state_dict=weights)
            AutoTokenizer.from_pretrained(task.source).save_pretrained(folder)
            (folder / "README.md").write_text(task.model_card, encoding="utf-8")
            files = states.upload_files(store, f"{task.folder}/model", folder)
        store.put(f"{task.folder}/model.json", json.dumps(files).encode())
    dist.barrier()
