"""URLs as they may be shown: without the passwords and signatures that they can carry."""

from __future__ import annotations

import re

__all__ = ["redact"]

_USERINFO = re.compile(r"(?<=://)[^/?#\s]*@")
_SECRET = re.compile(
    r"([?&](?:x-amz-(?:signature|credential|security-token)|x-goog-(?:signature|credential)|signature|sig|token"
    r"|access_token|auth|api_?key|key|password|secret)=)[^&#\s]+",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """Text with every URL's `user:password@` and secret-looking query values replaced by `***`."""
    return _SECRET.sub(r"\1***", _USERINFO.sub("***@", text))
