"""AWS identities for Bedrock: the usual credential chain, and requests signed with it."""

import asyncio
from dataclasses import replace
from typing import Any

import botocore.session
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError

from cgd_ray.errors import UserError
from cgd_ray.teacher.completion import TeacherError
from cgd_ray.teacher.wire.base import HttpRequest, line

_SERVICE = "bedrock"


class AwsSignature:
    """Signs requests (SigV4) with credentials that renew themselves.

    Args:
        credentials: of botocore.
        region: of the service.
    """

    def __init__(self, credentials: Any, region: str) -> None:  # noqa: ANN401, botocore is untyped
        self._credentials = credentials
        self._region = region
        self._token: str | None = None

    @property
    def secrets(self) -> tuple[str, ...]:
        """The session token, where there is one: all else that is sent holds for one request."""
        return (self._token,) if self._token else ()

    async def authorized(self, request: HttpRequest) -> HttpRequest:
        """Return the request with its signature.

        Raises:
            TeacherError: the credentials have ended and cannot be renewed now.
        """
        try:  # in a thread: a renewal asks a server
            return await asyncio.to_thread(self._signed, request)
        except BotoCoreError as error:
            raise TeacherError("credentials", line(error)) from error

    def _signed(self, request: HttpRequest) -> HttpRequest:
        frozen = self._credentials.get_frozen_credentials()
        self._token = frozen.token
        signed = AWSRequest(
            request.method, request.url, headers=dict(request.headers), data=request.body
        )
        SigV4Auth(frozen, _SERVICE, self._region).add_auth(signed)
        return replace(request, headers=dict(signed.headers.items()))


def aws_region(region: str | None) -> str:
    """Return the region of the settings, or else of the usual AWS configuration.

    Raises:
        UserError: there is none.
    """
    try:
        found = region or botocore.session.get_session().get_config_variable("region")
    except BotoCoreError as error:
        raise UserError(f"AWS configuration: {line(error)}") from error
    if not found:
        raise UserError(
            "teacher.backend=bedrock needs a region: set teacher.region or $AWS_DEFAULT_REGION"
        )
    return found


def aws_signature(region: str | None) -> AwsSignature:
    """Return a signer with the credentials that the usual AWS chain finds.

    Raises:
        UserError: there are none, or no region.
    """
    try:
        credentials = botocore.session.get_session().get_credentials()
    except BotoCoreError as error:
        raise UserError(f"AWS credentials: {line(error)}") from error
    if credentials is None:
        raise UserError(
            "teacher.backend=bedrock finds no AWS credentials: give the environment, a profile or "
            "a role, or a key in $AWS_BEARER_TOKEN_BEDROCK"
        )
    return AwsSignature(credentials, aws_region(region))
