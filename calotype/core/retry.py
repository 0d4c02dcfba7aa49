"""When to repeat an HTTP request: exponential backoff with jitter, and the server's Retry-After.

`urllib3.Retry` parses the header here. Its loop is not used: it has no deadline over all attempts, sleeps in
`time.sleep` where a closing client can't wake it, and counts a busy server's 429 as a failed attempt.
"""

from __future__ import annotations

import random
from typing import Final

from urllib3 import BaseHTTPResponse, Retry
from urllib3.exceptions import InvalidHeader

__all__ = ["FIRST_WAIT", "backoff", "retry_after"]

FIRST_WAIT: Final = 0.5
"""Seconds before the second attempt, on average; doubled before each later one."""


def backoff(attempts: int, *, longest: float, server_wait: float | None = None) -> float:
    """Return the seconds to wait after `attempts` failed ones, at random so that threads do not return all at once.

    Args:
        attempts: 1 or more.
        longest: Most seconds, before ± 50 % of jitter.
        server_wait: The result of `retry_after`; without jitter, and instead of the doubled time.
    """
    if server_wait is not None:
        return min(server_wait, longest)
    return min(longest, FIRST_WAIT * 2.0 ** min(attempts - 1, 60)) * random.SystemRandom().uniform(0.5, 1.5)


def retry_after(response: BaseHTTPResponse) -> float | None:
    """Return the seconds, 0 or more, that a response's Retry-After asks for (RFC 9110, section 10.2.3).

    None without the header, and when its value is neither a number nor a date.
    """
    try:
        return Retry().get_retry_after(response)
    except (InvalidHeader, ValueError, OverflowError):  # no number or date; one beyond what Python counts
        return None
