"""Settings -> the teacher that they name."""

from dataclasses import dataclass
from typing import Protocol

from yarl import URL

from cgd_ray.settings import TeacherSettings
from cgd_ray.teacher.asking import Teacher
from cgd_ray.teacher.aws import aws_region, aws_signature
from cgd_ray.teacher.credentials import Credentials, HeaderKey, read_api_key
from cgd_ray.teacher.echo import EchoTeacher
from cgd_ray.teacher.http import HttpLimits, HttpTeacher
from cgd_ray.teacher.wire import anthropic, bedrock, openai
from cgd_ray.teacher.wire.base import ChatOptions, Wire


class Backend(Teacher, Protocol):
    """A teacher that may hold connections."""

    async def close(self) -> None:
        """Close them."""
        ...


@dataclass(frozen=True, slots=True)
class Provider:
    """What is usual for one provider."""

    wire: Wire
    base_url: str
    key_variable: str


PROVIDERS = {
    "openai": Provider(openai.OPENAI, openai.BASE_URL, "OPENAI_API_KEY"),
    "anthropic": Provider(anthropic.ANTHROPIC, anthropic.BASE_URL, "ANTHROPIC_API_KEY"),
    "bedrock": Provider(bedrock.BEDROCK, bedrock.BASE_URL, "AWS_BEARER_TOKEN_BEDROCK"),
}


def own_base_url(settings: TeacherSettings) -> str:
    """Return the root of the API that the settings name: the provider's own if they give none.

    Raises:
        UserError: Bedrock's depends on a region, and there is none.
    """
    if settings.backend == "echo":
        return "echo:"
    if settings.base_url is None and settings.backend == "bedrock":
        return bedrock.BASE_URL.format(region=aws_region(settings.region))
    return settings.base_url or PROVIDERS[settings.backend].base_url


def key_source(settings: TeacherSettings) -> str:
    """Return where the key comes from, for messages.

    Raises:
        UserError: its file cannot be read.
    """
    if settings.api_key_file is not None:
        return f"teacher.api_key_file={settings.api_key_file}"
    if settings.backend == "bedrock" and _key(settings) is None:
        return "the AWS credential chain"
    return f"${_key_variable(settings)}"


def open_backend(settings: TeacherSettings, base_url: str) -> Backend:
    """Return the teacher behind an address, with the settings' key and limits.

    Args:
        settings: of the teacher.
        base_url: root of its API. One that is not the settings' own is of a server that the run
            has started itself, which may be private.

    Raises:
        UserError: the key cannot be read, or there are no AWS credentials or region.
    """
    if settings.backend == "echo":
        return EchoTeacher(settings.model)
    return open_http(settings, base_url)


def open_http(settings: TeacherSettings, base_url: str) -> HttpTeacher:
    """Return a teacher with a network: see `open_backend`."""
    s = settings
    # URL encodes what a person may have typed; what is joined to it later is encoded already.
    root = str(URL(base_url))
    options = ChatOptions(root, s.model, s.temperature, caches_first_turn=s.turns == 2)
    allow_private = s.allow_private_address or base_url != own_base_url(s)
    limits = HttpLimits(s.timeout_s, s.max_in_flight, allow_private)
    return HttpTeacher(PROVIDERS[s.backend].wire, options, _credentials(s), limits)


def _credentials(settings: TeacherSettings) -> Credentials:
    key = _key(settings)
    if settings.backend == "anthropic":
        return HeaderKey(key, "x-api-key", "")
    if settings.backend == "bedrock" and key is None:
        return aws_signature(settings.region)
    return HeaderKey(key)


def _key(settings: TeacherSettings) -> str | None:
    return read_api_key(_key_variable(settings), settings.api_key_file)


def _key_variable(settings: TeacherSettings) -> str:
    return settings.api_key_env or PROVIDERS[settings.backend].key_variable
