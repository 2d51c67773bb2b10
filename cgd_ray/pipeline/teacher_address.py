"""Where the teacher of a run is, checked before anything expensive starts."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from cgd_ray.errors import UserError
from cgd_ray.local_servers import tutor_server
from cgd_ray.pipeline.context import RunContext
from cgd_ray.settings import TeacherSettings
from cgd_ray.teacher.address import check_base_url
from cgd_ray.teacher.openai_backend import read_api_key


@contextmanager
def teacher_address(ctx: RunContext) -> Iterator[str]:
    """Yield the root of the teacher's API, checked; starts the tutor where the run asks for it.

    Raises:
        UserError: it cannot be reached or refuses the key.
    """
    s = ctx.settings
    if s.local.tutor:
        with tutor_server(s.local.tutor_reveal, ctx.work_dir) as base_url:
            yield base_url
    else:
        check_teacher(s.teacher)
        yield s.teacher.base_url


def check_teacher(teacher: TeacherSettings) -> None:
    """Ask the teacher's API for its models, which costs nothing.

    Raises:
        UserError: the address is refused or unreachable, or the key is.
    """
    check_base_url(teacher.base_url, allow_private=teacher.allow_private_address)
    key = read_api_key(teacher.api_key_env, teacher.api_key_file)
    url = f"{teacher.base_url.rstrip('/')}/models"
    try:
        answer = httpx.get(
            url, headers={"Authorization": f"Bearer {key}"}, timeout=10, follow_redirects=False
        )
    except httpx.HTTPError as error:
        raise UserError(
            f"teacher.base_url={teacher.base_url} cannot be reached: {error}; start that server or "
            "change teacher.base_url"
        ) from error
    if answer.status_code in (401, 403):
        where = teacher.api_key_file or f"${teacher.api_key_env}"
        raise UserError(
            f"teacher.base_url={teacher.base_url} answers {answer.status_code} to the key from "
            f"{where}: set teacher.api_key_env or teacher.api_key_file"
        )
    if answer.is_redirect:
        raise UserError(
            f"teacher.base_url={teacher.base_url} redirects to another address: prompts are never "
            "sent on, set the final one"
        )
