"""Secrets, masked in texts that come from outside before they are stored or told."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Collection
from itertools import pairwise

__all__ = ["masked", "secrets_in"]

_MASK = "***"
_SECRET_NAME = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(?:_|$)", re.IGNORECASE)
_SHORTEST = 8
_PLACE = re.compile(r"_(?:FILE|PATH|DIR|NAME)$", re.IGNORECASE)
_USER_IN_ADDRESS = re.compile(r"(?<=://)[^/\s]+(?=@)")


def masked(text: str, secrets: Collection[str] = ()) -> str:
    """A text without the secrets of this process's environment, and without others that are known.

    Masked are the values of variables whose names end, or have a part that ends, in KEY, TOKEN,
    SECRET, PASSWORD or CREDENTIALS, and user and password in any address such as that of a
    package index or a proxy. Simplified: a value of fewer than 8 characters stays, for such stand
    in ordinary words.

    Args:
        text: Such as the traceback of a failed trial.
        secrets: Those that `secrets_in` found.
    """
    secrets = {*secrets} | {value for name, value in os.environ.items() if _SECRET_NAME.search(name)}
    for secret in sorted(secrets, key=len, reverse=True):  # one may stand within another
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, _MASK)
    return _USER_IN_ADDRESS.sub(_MASK, text)


def secrets_in(command: str) -> list[str]:
    """What looks like a secret among the words of a command.

    These are values of ``--name VALUE``, ``--name=VALUE`` and ``NAME=VALUE`` where the name is one of
    those that `masked` knows of variables, also within a word that is a command in turn, as that of
    ``sh -c``; and user and password in addresses. Left out are values of fewer than 8 characters, those
    with a placeholder in braces, and where the name is of a file (``--key-file``). Simplified: a secret
    that bears no such name is not seen.

    Args:
        command: Words and quotes as in a shell.
    """
    try:
        words = shlex.split(command)
    except ValueError:  # no command, and so not run either
        return []
    named = [tuple(word.split("=", 1)) for word in words if "=" in word]
    named += [pair for pair in pairwise(words) if pair[0].startswith("-") and not pair[1].startswith("-")]
    found = [value for name, value in named if _is_secret(name, value)]
    found += [match for word in words for match in _USER_IN_ADDRESS.findall(word)]
    for word in words:
        if len(words) > 1 and len(word.split()) > 1:
            found += secrets_in(word)
    return list(dict.fromkeys(found))


def _is_secret(name: str, value: str) -> bool:
    name = name.lstrip("-").replace("-", "_")
    known = re.fullmatch(r"\w+", name) and _SECRET_NAME.search(name) and not _PLACE.search(name)
    return bool(known) and len(value) >= _SHORTEST and "{" not in value
