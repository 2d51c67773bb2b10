"""When to call again, and after how long: pure, so that a test can read the whole schedule."""

import math
import random
from email.utils import parsedate_to_datetime

_FIRST_S = 0.5
_LONGEST_S = 60.0


def backoff_s(attempt: int, retry_after_s: float | None, draw: random.Random) -> float:
    """Return the wait before attempt number `attempt + 1`, in seconds.

    Full jitter: uniform between 0 and a bound that doubles with each attempt, so that many callers
    do not return at once. A server's `Retry-After` is a floor, whatever its length.

    Args:
        attempt: calls made so far, from 1.
        retry_after_s: the server's own wish.
        draw: source of the jitter.
    """
    wait = draw.uniform(0, min(_LONGEST_S, _FIRST_S * 2 ** (attempt - 1)))
    return wait if retry_after_s is None else retry_after_s + wait


def parse_retry_after(value: str | None, now_s: float) -> float | None:
    """Return a `Retry-After` header (seconds or an HTTP date) in seconds; None if unreadable."""
    if not value:
        return None
    try:
        seconds = float(value)
        return max(0.0, seconds) if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now_s)
    except ValueError:
        return None
