"""Settings -> the teacher that they name."""

from typing import Protocol

from cgd_ray.settings import TeacherSettings
from cgd_ray.teacher.chain import Teacher
from cgd_ray.teacher.credentials import HeaderKey, read_api_key
from cgd_ray.teacher.http import HttpLimits, HttpTeacher
from cgd_ray.teacher.wire import openai
from cgd_ray.teacher.wire.base import ChatOptions


class Backend(Teacher, Protocol):
    """A teacher that holds connections."""

    async def close(self) -> None:
        """Close them."""
        ...


def own_base_url(settings: TeacherSettings) -> str:
    """Return the root of the API that the settings name: the provider's own if they give none."""
    return settings.base_url or openai.BASE_URL


def open_backend(settings: TeacherSettings, base_url: str) -> HttpTeacher:
    """Return the teacher behind an address, with the settings' key and limits.

    Args:
        settings: of the teacher.
        base_url: root of its API. One that is not the settings' own is of a server that the run
            has started itself, which may be private.

    Raises:
        UserError: the key cannot be read.
    """
    s = settings
    options = ChatOptions(base_url, s.model, s.temperature, caches_first_turn=s.turns == 2)
    key = read_api_key(s.api_key_env or "OPENAI_API_KEY", s.api_key_file)
    allow_private = s.allow_private_address or base_url != own_base_url(s)
    limits = HttpLimits(s.timeout_s, s.max_in_flight, allow_private)
    return HttpTeacher(openai.OPENAI, options, HeaderKey(key), limits)
