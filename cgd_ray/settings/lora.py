"""Low-rank adapters."""

from pydantic import Field

from cgd_ray.settings.base import Section


class LoraSettings(Section):
    """LoRA (arXiv 2106.09685): W + (alpha / rank) B A, where A and B alone are trained.

    The exported student has the adapters merged into its weights: it is served as any other.
    """

    rank: int = Field(default=0, ge=0)
    """Rows of A and columns of B; 0: no adapters, all weights are trained."""
    alpha: int = Field(default=32, ge=1)
    """Numerator of the adapters' scale; the denominator is the rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the adapters' inputs that is dropped in training."""
    targets: tuple[str, ...] = ()
    """Last names of the linear layers that get adapters, such as `q_proj`; empty: all of them but
    the language-model head."""
