"""DeepSpeed's configuration, from our settings."""

from typing import Any

from cgd_ray.settings import TrainSettings
from cgd_ray.training.order import batches_a_worker


def deepspeed_config(train: TrainSettings, num_workers: int) -> dict[str, Any]:
    """Return the configuration of the engine.

    The loop hands DeepSpeed losses that are scaled already, and sets the learning rate itself.
    """
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": batches_a_worker(train.batches_per_step, num_workers),
        "gradient_clipping": train.max_grad_norm,
        "zero_optimization": {
            "stage": train.zero_stage,
            "stage3_gather_16bit_weights_on_model_save": True,
            **_offloads(train),
        },
        "bf16": {"enabled": train.dtype == "bfloat16"},
        # AdamW is torch's own: DeepSpeed's CPU kernel would have to be compiled on the spot.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1_000_000_000,
    }
    return config


def _offloads(train: TrainSettings) -> dict[str, Any]:
    """Return where what is sharded lives, if not on the worker's device."""
    asked = {
        "offload_optimizer": train.offload_optimizer,
        "offload_param": train.offload_parameters,
    }
    return {name: {"device": "cpu", "pin_memory": True} for name, on in asked.items() if on}
