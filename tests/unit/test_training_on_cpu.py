"""Norms in fewer passes, and what training sets up in its process on a CPU."""

import os
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3TextConfig, PreTrainedConfig
from transformers.models.auto.configuration_auto import AutoConfig

from cgd_ray.allocator import allocator_environment
from cgd_ray.training.cpu import apply_lean_layers
from cgd_ray.training.environment import worker_environment
from cgd_ray.training.loss import target_loss_sum
from tests.support.packed_rows import documents, row
from tests.support.tiny_llama import VOCABULARY, tiny_llama

SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_lean_norms_have_the_loss_and_gradients_of_the_stock_ones(
    dtype: torch.dtype, within: float
) -> None:
    model, batch = tiny_llama().train(), row(documents([30, 11, 22]))
    generator = torch.Generator().manual_seed(5)
    for name, weight in model.named_parameters():
        if "norm" in name:  # else all are one, which would hide a gradient that is wrong
            weight.data.uniform_(0.5, 1.5, generator=generator)
    model.to(dtype)
    names, weights = zip(*model.named_parameters(), strict=True)
    stock = target_loss_sum(model, batch)
    wanted = torch.autograd.grad(stock, weights)
    assert apply_lean_layers(model) == (5, 0)
    lean = target_loss_sum(model, batch)
    assert lean.item() == pytest.approx(stock.item(), rel=within)
    for name, a, b in zip(names, torch.autograd.grad(lean, weights), wanted, strict=True):
        assert (a - b).abs().max().item() <= within * b.abs().max().item(), name


@pytest.mark.parametrize(
    ("config", "number"),
    [
        (AutoConfig.for_model("qwen3", **SIZES), 9),  # queries' and keys' heads have their own
        (AutoConfig.for_model("mixtral", **SIZES, num_local_experts=2), 5),
        (AutoConfig.for_model("olmo2", **SIZES), 0),
        (Gemma3TextConfig(**SIZES), 0),
    ],
    ids=["qwen3", "mixtral", "olmo2", "gemma3"],
)
def test_only_norms_of_the_same_arithmetic_are_replaced(
    config: PreTrainedConfig, number: int
) -> None:
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    ids = torch.arange(12)[None]
    with torch.no_grad():
        stock = model(input_ids=ids).logits
        assert apply_lean_layers(model) == (number, 0)
        assert (model(input_ids=ids).logits - stock).abs().max().item() <= 1e-5


@pytest.mark.parametrize("frozen", [False, True])
def test_narrow_layers_have_the_outputs_and_gradients_of_the_stock_ones(frozen: bool) -> None:
    torch.manual_seed(1)
    sizes = SIZES | {"hidden_size": 576, "head_dim": 144}
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("llama", **sizes, tie_word_embeddings=True), dtype=torch.bfloat16
    )
    layer = model.model.layers[0].mlp
    layer.down_proj.weight.requires_grad = not frozen
    hidden = torch.randn(1, 50, 576, dtype=torch.bfloat16, requires_grad=True)
    weighting = torch.randn(1, 50, 576, dtype=torch.bfloat16)
    inputs = [hidden, layer.gate_proj.weight, *([] if frozen else [layer.down_proj.weight])]

    def found() -> list[torch.Tensor]:
        output = layer(hidden)
        return [output, *torch.autograd.grad(output, inputs, weighting)]

    stock = found()
    assert apply_lean_layers(model) == (5, 14), "but not the head"
    for lean, wanted in zip(found(), stock, strict=True):
        assert (lean - wanted).abs().max().item() <= 0.01 * wanted.abs().max().item()


def test_denormal_numbers_are_zero_in_all_threads() -> None:
    """In a process of its own: the setting would stay."""
    code = (
        "import torch; from cgd_ray.training.cpu import prepare_process; prepare_process(2);"
        "print((torch.full((4_000_000,), 1e-39) * 1.5).count_nonzero().item(),"
        " torch.get_num_threads())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "2"]


@pytest.mark.skipif(not allocator_environment(), reason="this Ray came without jemalloc")
def test_memory_of_steps_is_used_again() -> None:
    """Else each step would take as much again, as it does of a glibc that is told to keep it."""
    code = (
        "import torch\n"
        "def resident():\n"
        "    return int(open('/proc/self/statm').read().split()[1]) * 4096 / 2**20\n"
        "kept, seen = [], []\n"
        "for step in range(30):\n"
        "    grads = [torch.zeros(2**24, dtype=torch.bfloat16) for _ in range(2)]\n"
        "    kept.append([torch.empty(n) for n in (10, 100, 1000)])\n"
        "    del grads\n"
        "    seen.append(resident())\n"
        "print(seen[5], seen[-1])\n"
    )
    environment = {**os.environ, **worker_environment(on_gpu=False)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    early, last = map(float, done.stdout.split())
    assert early > 256, "freed memory stays with the process"
    assert last - early < 128, "the same size fits where it was"
