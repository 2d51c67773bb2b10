"""The embedded student, at its real size: the loss of a packed batch is that of its documents."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from cgd_ray.examples.objectives import OBJECTIVES, build_example
from cgd_ray.records import Example
from cgd_ray.settings import EMBEDDED_STUDENT
from cgd_ray.student import chat_tokenizer, student_source
from cgd_ray.training.attention import DOCUMENT_ATTENTION, register
from cgd_ray.training.loss import target_loss_sum
from tests.support.packed_rows import row
from tests.support.records import chain


def test_packed_loss_is_unpacked_loss(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Each document is also run alone, by transformers' own attention, with all logits."""
    source = student_source(EMBEDDED_STUDENT, tmp_path_factory.mktemp("work"))
    tokenizer = chat_tokenizer(source)
    taught = chain("What is 9 + 3?", "9 + 3 = 11", "Step 1 is wrong.", "9 + 3 = 12", solution="12")
    made = [build_example(objective, taught, tokenizer, 512) for objective in OBJECTIVES]
    examples = [example for example in made if isinstance(example, Example)]
    assert len(examples) == len(OBJECTIVES)
    register()
    packing = AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.float32, attn_implementation=DOCUMENT_ATTENTION
    )
    stock = AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        together = target_loss_sum(packing.eval(), row(examples)).item()
        alone = 0.0
        for example in examples:
            ids = torch.tensor([example.input_ids])
            full = stock.eval()(input_ids=ids, use_cache=False).logits[0]
            targets = torch.tensor(example.loss_mask, dtype=torch.bool)
            alone += cross_entropy(full[:-1][targets[1:]], ids[0][targets], reduction="sum").item()
    num_targets = sum(sum(example.loss_mask) for example in examples)
    assert alone / num_targets > 0.1
    assert abs(together - alone) / num_targets <= 1e-4
