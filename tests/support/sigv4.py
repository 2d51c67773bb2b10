"""AWS Signature Version 4, checked as a server does: from what arrived, not from what was meant."""

import hashlib
import hmac
import re
from urllib.parse import quote

from tests.support.scripted_teacher import Request


def expected_signature(request: Request, secret_key: str) -> str:
    """Return the signature that a request must carry, by the scope and headers that it names."""
    found = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=[^/]+/([^,]+), SignedHeaders=([^,]+), Signature=[0-9a-f]{64}",
        request.headers["authorization"],
    )
    assert found, request.headers["authorization"]
    scope, names = found[1], found[2].split(";")
    canonical = "\n".join(
        [
            request.method,
            quote(request.path, safe="/~"),  # every service but S3 encodes the path once more
            "",
            *(f"{name}:{request.headers[name]}" for name in names),
            "",
            ";".join(names),
            hashlib.sha256(request.raw).hexdigest(),
        ]
    )
    when = request.headers["x-amz-date"]
    hashed = hashlib.sha256(canonical.encode()).hexdigest()
    to_sign = "\n".join(["AWS4-HMAC-SHA256", when, scope, hashed])
    key = f"AWS4{secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, to_sign.encode(), "sha256").hex()
