"""When an HTTP request is repeated: the waits that fetching images and captioning share."""

import time
from email.utils import formatdate

import pytest
from urllib3 import HTTPResponse

from calotype.core.retry import FIRST_WAIT, backoff, retry_after


def response(value):
    return HTTPResponse(status=503, headers={} if value is None else {"Retry-After": value})


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7),
        (" 0 ", 0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 21 Oct 2015 07:28:00", 0),
        (None, None),
        ("", None),
        ("-3", None),
        ("tomorrow, perhaps", None),
        ("9" * 5000, None),
        ("Wed, 21 Oct 999999999 07:28:00 GMT", None),
    ],
)
def test_retry_after(value, seconds):
    assert retry_after(response(value)) == seconds


def test_retry_after_a_date_to_come():
    assert 4 < retry_after(response(formatdate(time.time() + 6, usegmt=True))) <= 6


def test_backoff_doubles_up_to_a_limit_and_differs():
    waits = [backoff(attempts, longest=4.0) for attempts in (1, 2, 3, 4, 5, 2000)]
    expected = [FIRST_WAIT, 2 * FIRST_WAIT, 4 * FIRST_WAIT, 4.0, 4.0, 4.0]
    assert all(0.5 * mean <= wait <= 1.5 * mean for wait, mean in zip(waits, expected, strict=True))
    assert len({backoff(1, longest=4.0) for _ in range(9)}) > 1
