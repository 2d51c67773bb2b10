"""Liger's kernels: norms, rotary positions and MLPs in fewer passes over a GPU's memory.

The loss stays ours: it is computed at target tokens alone.
"""

import importlib
import importlib.util
from typing import Literal

from transformers import PreTrainedModel

from cgd_ray.errors import UserError

# Dense families whose kernels `auto` turns on; `on` takes whatever the installed package knows.
_DENSE = frozenset({"llama", "qwen2", "qwen3", "mistral", "olmo2", "gemma3_text"})


def check_liger(wanted: Literal["auto", "on", "off"], *, on_gpu: bool) -> None:
    """Refuse kernels that cannot be had.

    Raises:
        UserError: they are asked for, and there is no GPU or no package.
    """
    if wanted == "on" and not on_gpu:
        raise UserError("train.liger=on needs GPUs: set train.liger=auto to train on CPUs")
    if wanted == "on" and not _installed():
        raise UserError("train.liger=on needs `pip install liger-kernel`, or set train.liger=auto")


def apply_liger(
    model: PreTrainedModel, wanted: Literal["auto", "on", "off"], *, on_gpu: bool
) -> bool:
    """Replace a model's norms, rotary positions and MLPs, in place; return whether that was done.

    Raises:
        UserError: the kernels are asked for and do not know the model's family.
    """
    family = model.config.model_type
    if wanted == "off" or not on_gpu or not _installed():
        return False
    if wanted == "auto" and family not in _DENSE:
        return False
    patches = importlib.import_module("liger_kernel.transformers.monkey_patch")
    if family in patches.MODEL_TYPE_TO_APPLY_LIGER_FN:
        patches._apply_liger_kernel_to_instance(
            model=model, cross_entropy=False, fused_linear_cross_entropy=False
        )
        return True
    if wanted == "on":
        raise UserError(f"train.liger=on, but liger-kernel knows no {family}: set train.liger=auto")
    return False


def _installed() -> bool:
    return importlib.util.find_spec("liger_kernel") is not None
