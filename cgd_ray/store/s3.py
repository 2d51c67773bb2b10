"""Objects on S3. The only file that knows boto3."""

import random
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlparse

import boto3.session
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from cgd_ray.errors import UserError
from cgd_ray.store.protocol import Entry, MissingKey, StoreError

T = TypeVar("T")

PATIENCE_S = 300.0  # minutes of an outage are ridden out
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.2, 5.0  # between two calls of a server that is away


class S3Store:
    """A prefix of an S3 bucket. Address and keys come from the usual AWS chain.

    `AWS_ENDPOINT_URL` points it to any S3-compatible server.

    Args:
        root: `s3://bucket/prefix`.
        patience_s: how long a server that is away or overloaded is asked again, in seconds.
    """

    # Concurrent creators of one key: the server answers 412 to the later and 409 to a racing one.
    _TAKEN = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
    _MISSING = frozenset({"NoSuchKey", "NotFound", "404"})

    def __init__(self, root: str, patience_s: float = PATIENCE_S) -> None:
        self.root = root.rstrip("/")
        self._patience_s = patience_s
        parsed = urlparse(root)
        self._bucket = parsed.netloc
        self._prefix = parsed.path.strip("/")
        # A session of its own: the default one would keep the first keys that it ever saw.
        self._client = boto3.session.Session().client(
            "s3",
            config=Config(
                retries={"mode": "standard", "max_attempts": 2},
                connect_timeout=5,
                read_timeout=60,
                s3={"addressing_style": "path"},
            ),
        )

    def get(self, key: str) -> bytes:
        """Return an object. Raises MissingKey."""
        return self._get(key)

    def get_head(self, key: str, num_bytes: int) -> bytes:
        """Return the first bytes of an object, or all if it is shorter. Raises MissingKey."""
        return self._get(key, Range=f"bytes=0-{num_bytes - 1}")

    def put(self, key: str, data: bytes) -> None:
        """Create or replace an object, atomically."""
        self._ask(key, lambda: self._client.put_object(**self._at(key), Body=data))

    def put_new(self, key: str, data: bytes) -> bool:
        """Create an object; return False, changing nothing, if the key exists."""
        while True:
            try:
                self._ask(
                    key,
                    lambda: self._client.put_object(**self._at(key), Body=data, IfNoneMatch="*"),
                )
            except ClientError as error:
                # 409: a racing writer has not finished and may yet fail, so look before yielding.
                if _code(error) in ("PreconditionFailed", "412") or self._exists(key):
                    return False
            else:
                return True

    def list(self, prefix: str) -> Iterator[Entry]:
        """Yield the objects whose key begins with `prefix`, in key order."""
        strip = len(self._prefix) + 1 if self._prefix else 0
        position: dict[str, str] = {}
        while True:
            page = self._ask(
                prefix,
                lambda position=position: self._client.list_objects_v2(
                    Bucket=self._bucket, Prefix=self._full(prefix), **position
                ),
            )
            now = parsedate_to_datetime(page["ResponseMetadata"]["HTTPHeaders"]["date"])
            for item in page.get("Contents", []):
                age_s = (now - item["LastModified"]).total_seconds()
                yield Entry(item["Key"][strip:], item["Size"], item["ETag"].strip('"'), age_s)
            if not page.get("IsTruncated"):
                return
            position = {"ContinuationToken": page["NextContinuationToken"]}

    def delete(self, key: str) -> None:
        """Remove an object; a missing one is no error."""
        self._ask(key, lambda: self._client.delete_object(**self._at(key)))

    def upload(self, path: Path, key: str) -> None:
        """Put a file, of any size, as an object."""
        source, target = str(path), (self._bucket, self._full(key))
        self._ask(key, lambda: self._client.upload_file(source, *target, Config=_TRANSFER))

    def download(self, key: str, path: Path) -> None:
        """Write an object to a file. Raises MissingKey."""
        source, target = (self._bucket, self._full(key)), str(path)
        try:
            self._ask(key, lambda: self._client.download_file(*source, target, Config=_TRANSFER))
        except ClientError as error:
            raise MissingKey(key) from error

    def create_bucket(self) -> None:
        """Make the bucket; one that exists is no error.

        Raises:
            UserError: its name is not a bucket's.
        """
        try:
            self._client.create_bucket(Bucket=self._bucket)
        except ClientError as error:
            if _code(error) == "InvalidBucketName":
                raise UserError(
                    f"'{self._bucket}' in {self.root} is not a bucket name: use 3 to 63 small "
                    "letters, digits and hyphens"
                ) from error
            if _code(error) not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                raise

    def can_write(self) -> bool:
        """Return whether the bucket could be made and an object be put into it."""
        try:
            self.create_bucket()
            self.put(".ready", b"")
        except (ClientError, BotoCoreError, StoreError):
            return False
        return True

    def check(self, setting: str) -> None:
        """Refuse a bucket that cannot be reached with the present address and keys.

        Raises:
            UserError: the message names the setting that holds the bucket.
        """
        address = self._client.meta.endpoint_url
        try:
            self._client.head_bucket(Bucket=self._bucket)
        except ClientError as error:
            code = _code(error)
            why = {"404": "does not exist", "403": "refuses these AWS keys"}.get(
                code, f"says {code}"
            )
            raise UserError(
                f"bucket '{self._bucket}' at {address} {why}: change {setting}={self.root} or the "
                "AWS_* environment"
            ) from error
        except BotoCoreError as error:
            raise UserError(
                f"S3 at {address} cannot be used ({error}): change {setting}={self.root} or the "
                "AWS_* environment"
            ) from error

    def _get(self, key: str, **options: str) -> bytes:
        try:
            return self._ask(
                key, lambda: self._client.get_object(**self._at(key), **options)["Body"].read()
            )
        except ClientError as error:
            raise MissingKey(key) from error

    def _ask(self, key: str, call: Callable[[], T]) -> T:
        """Return what a call returns, calling again while the server is away or overloaded.

        Raises:
            ClientError: the object is missing, or its key taken: the caller's business.
            StoreError: any other refusal, or no answer for `patience_s`.
        """
        deadline = time.monotonic() + self._patience_s
        wait = _FIRST_WAIT_S
        while True:
            try:
                return call()
            except ClientError as error:
                if _code(error) in self._MISSING | self._TAKEN:
                    raise
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
                if (status < 500 and status != 429) or time.monotonic() > deadline:
                    raise StoreError(f"S3 refuses {self.root}/{key}: {error}") from error
            except (BotoCoreError, Boto3Error) as error:
                if time.monotonic() > deadline:
                    raise StoreError(
                        f"S3 does not answer for {self.root}/{key}: {error}"
                    ) from error
            time.sleep(random.uniform(0, wait))
            wait = min(2 * wait, _LONGEST_WAIT_S)

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._full(key)}

    def _exists(self, key: str) -> bool:
        return any(entry.key == key for entry in self.list(key))

    def _full(self, key: str) -> str:
        return f"{self._prefix}/{key}" if self._prefix else key


_TRANSFER = TransferConfig(multipart_threshold=64 << 20, multipart_chunksize=32 << 20)


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
