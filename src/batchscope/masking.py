"""Secrets, masked in texts that come from outside before they are stored or told."""

from __future__ import annotations

import os
import re

__all__ = ["masked"]

_MASK = "***"
_SECRET_NAME = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(?:_|$)", re.IGNORECASE)
_SHORTEST = 8
_USER_IN_ADDRESS = re.compile(r"(?<=://)[^/\s]+(?=@)")


def masked(text: str) -> str:
    """A text without the secrets of this process's environment.

    Masked are the values of variables whose names end, or have a part that ends, in KEY, TOKEN,
    SECRET, PASSWORD or CREDENTIALS, and user and password in any address such as that of a
    package index or a proxy. Simplified: a value of fewer than 8 characters stays, for such stand
    in ordinary words.

    Args:
        text: Such as the traceback of a failed trial.
    """
    secrets = {value for name, value in os.environ.items() if _SECRET_NAME.search(name)}
    for secret in sorted(secrets, key=len, reverse=True):  # one may stand within another
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, _MASK)
    return _USER_IN_ADDRESS.sub(_MASK, text)
