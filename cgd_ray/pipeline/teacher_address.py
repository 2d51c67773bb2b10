"""Where the teacher of a run is, checked before anything expensive starts."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from cgd_ray.errors import UserError
from cgd_ray.local_servers import tutor_server
from cgd_ray.pipeline.context import RunContext
from cgd_ray.settings import TeacherSettings
from cgd_ray.teacher.address import check_base_url
from cgd_ray.teacher.backend import key_source, open_http, own_base_url
from cgd_ray.teacher.completion import TeacherError
from cgd_ray.teacher.wire.base import HttpResponse, error_words

_TIMEOUT_S = 10.0


@contextmanager
def teacher_address(ctx: RunContext) -> Iterator[str]:
    """Yield the root of the teacher's API, checked; starts the tutor where the run asks for it.

    Raises:
        UserError: it cannot be reached or refuses the key.
    """
    s = ctx.settings
    if s.local.tutor:
        if s.teacher.backend != "openai":
            raise UserError(
                f"teacher.backend={s.teacher.backend} and local.tutor=true: the tutor speaks "
                "OpenAI's API, set local.tutor=false"
            )
        if s.teacher.mode == "batch":
            raise UserError(
                "teacher.mode=batch and local.tutor=true: the tutor has no batch API, set "
                "teacher.mode=chat or local.tutor=false"
            )
        with tutor_server(s.local.tutor_reveal, ctx.work_dir) as base_url:
            yield base_url
    else:
        check_teacher(s.teacher)
        yield own_base_url(s.teacher)


def check_teacher(teacher: TeacherSettings) -> None:
    """Ask the teacher's API something that costs nothing.

    Raises:
        UserError: the address is refused or unreachable, or the key is.
    """
    if teacher.backend == "echo":
        return
    base_url = own_base_url(teacher)
    check_base_url(base_url, allow_private=teacher.allow_private_address)
    try:
        response = asyncio.run(_probed(teacher, base_url))
    except TeacherError as error:
        raise UserError(
            f"teacher.base_url={base_url} cannot be reached: {error.detail}; start that server or "
            "change teacher.base_url"
        ) from error
    if response.status in (401, 403):
        raise UserError(
            f"teacher.base_url={base_url} answers {response.status} to the key from "
            f"{key_source(teacher)}: set teacher.api_key_env or teacher.api_key_file ("
            f"{error_words(response)})"
        )
    if 300 <= response.status < 400:
        raise UserError(
            f"teacher.base_url={base_url} redirects to another address: prompts are never sent "
            "on, set the final one"
        )


async def _probed(teacher: TeacherSettings, base_url: str) -> HttpResponse:
    limited = teacher.model_copy(update={"timeout_s": _TIMEOUT_S})
    backend = open_http(limited, base_url)
    try:
        return await backend.probe()
    finally:
        await backend.close()
