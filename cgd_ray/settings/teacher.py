"""The teacher: which, how it is asked, and within which limits."""

from typing import Literal, Self

from pydantic import Field, model_validator

from cgd_ray.settings.base import Section


class TeacherSettings(Section):
    """The strong model that criticises and refines."""

    backend: Literal["openai", "anthropic", "bedrock", "echo"] = "openai"
    """What the API speaks: OpenAI chat completions (any compatible server), Anthropic messages,
    Amazon Bedrock Converse. `echo` answers at once, without a network, with the end of what it was
    asked: for tests of the plumbing."""
    base_url: str | None = None
    """Root of the API; None: the provider's own. Ignored when `local.tutor` is on."""
    model: str = "gpt-4o"
    """Model name as that API knows it."""
    api_key_env: str | None = None
    """Environment variable that holds the key, on the machine that calls; None: the provider's
    usual one (OPENAI_API_KEY, ANTHROPIC_API_KEY, AWS_BEARER_TOKEN_BEDROCK; Bedrock without it takes
    the AWS credential chain)."""
    api_key_file: str | None = None
    """File that holds the key; wins over the variable."""
    region: str | None = None
    """AWS region, for Bedrock; None: as the AWS configuration says."""
    mode: Literal["chat", "batch"] = "chat"
    """`batch` sends the calls through the batch API of OpenAI or Anthropic: half the price, within
    a day. The limits on rates and on calls at once are for `chat`."""
    turns: Literal[1, 2] = 2
    """2: a critique, then the refinement as the second turn of the same chat. 1: both in one
    structured answer, for half the calls."""
    temperature: float | None = Field(default=0.0, ge=0, le=2)
    """Sampling temperature of critiques and refinements, at most 1 for Anthropic and Bedrock; none:
    not sent, as reasoning models and the newest Claude models want it."""
    critique_max_tokens: int = Field(default=1024, ge=1)
    """Longest critique; a longer one is a failed row, never a cut text."""
    refinement_max_tokens: int = Field(default=2048, ge=1)
    """Longest refinement; a longer one is a failed row, never a cut text."""
    num_actors: int = Field(default=1, ge=1)
    """Actors that call the teacher."""
    max_in_flight: int = Field(default=64, ge=1)
    """Calls under way at once in one actor; fewer where the server is seen to queue."""
    max_requests_per_minute: int | None = Field(default=None, ge=1)
    """Limit over all actors; None: as fast as the server takes them."""
    max_tokens_per_minute: int | None = Field(default=None, ge=1)
    """Limit on input and output tokens over all actors; None: no limit."""
    timeout_s: float = Field(default=120.0, gt=0)
    """Limit on one call."""
    max_attempts: int = Field(default=6, ge=1)
    """Calls for one answer, the first included, before the row is left for a later run."""
    max_retry_share: float = Field(default=0.5, ge=0)
    """Retries that a whole run may make, as a share of its calls (100 are always allowed): a
    teacher that is down ends the stage instead of being asked for ever."""
    max_usd: float | None = Field(default=None, gt=0)
    """Hard cap on what the run's teacher calls may cost, earlier attempts included: no call is
    made that could pass it. Needs known prices."""
    usd_per_million_input_tokens: float | None = Field(default=None, ge=0)
    """Price; None: as the table of known models says."""
    usd_per_million_cached_tokens: float | None = Field(default=None, ge=0)
    """Price of input tokens that the provider's prompt cache served; None: as the table says, or
    as other input."""
    usd_per_million_output_tokens: float | None = Field(default=None, ge=0)
    """Price; None: as the table of known models says."""
    allow_private_address: bool = False
    """Let `base_url` point to a private or loopback address (your own server)."""

    @model_validator(mode="after")
    def _temperature_fits(self) -> Self:
        if self.backend in ("anthropic", "bedrock") and (self.temperature or 0) > 1:
            raise ValueError(
                f"teacher.temperature={self.temperature} is over 1, the limit of "
                f"teacher.backend={self.backend}"
            )
        return self

    @model_validator(mode="after")
    def _mode_fits(self) -> Self:
        if self.mode == "batch" and self.backend not in ("openai", "anthropic"):
            raise ValueError(
                f"teacher.mode=batch needs teacher.backend=openai or anthropic, not "
                f"{self.backend}: set teacher.mode=chat"
            )
        return self
