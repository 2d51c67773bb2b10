"""DeepSpeed's configuration, from our settings."""

from typing import Any

from cgd_ray.settings import TrainSettings


def deepspeed_config(train: TrainSettings) -> dict[str, Any]:
    """Return the configuration of the engine.

    The loop hands DeepSpeed losses that are scaled already, and sets the learning rate itself.
    """
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": train.batches_per_step // train.num_workers,
        "gradient_clipping": train.max_grad_norm,
        "zero_optimization": {
            "stage": train.zero_stage,
            "stage3_gather_16bit_weights_on_model_save": True,
        },
        "bf16": {"enabled": train.dtype == "bfloat16"},
        # AdamW is torch's own: DeepSpeed's CPU kernel would have to be compiled on the spot.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1_000_000_000,
    }
    return config
