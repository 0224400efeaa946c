"""Which code trains: its SHA-256, by which a run tells whether it was changed."""

from __future__ import annotations

import ast
import hashlib
import shlex
import textwrap
import warnings
from contextlib import suppress
from pathlib import Path

__all__ = ["code_sha256", "command_sha256"]

_SCRIPTS = (".py", ".sh", ".R", ".r", ".jl", ".js", ".lua", ".pl", ".rb")
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def code_sha256(source: str) -> str:
    """SHA-256, in hexadecimal digits, of Python code as it is executed.

    Comments, docstrings and layout count for nothing. What is no whole program, as the lines of a
    lambda within an expression may be none, is taken as it is written. Other versions of Python give the
    same, but where they understand the code otherwise.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are told where the code is compiled
            tree = ast.parse(textwrap.dedent(source))
        for node in ast.walk(tree):
            if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:] or [ast.Pass()]
        written = _written(tree)
    except (SyntaxError, ValueError, RecursionError):
        written = source
    return _sha256(written.encode(errors="surrogatepass"))


def _written(part: object) -> str:
    """A part of a syntax tree, without fields that are empty: newer versions of Python add such ones."""
    match part:
        case ast.JoinedStr(values=pieces):
            # Python 3.12 has empty ones in formats.
            full = [piece for piece in pieces if not (isinstance(piece, ast.Constant) and piece.value == "")]
            return f"JoinedStr({_written(full)})"
        case ast.AST():
            told = [
                f"{name}={_written(value)}"
                for name, value in ast.iter_fields(part)
                if value not in (None, []) and name != "kind"  # the u of u"", which does nothing
            ]
            return f"{type(part).__name__}({' '.join(told)})"
        case list():
            return f"[{' '.join(map(_written, part))}]"
        case str():
            return ascii(part)  # what else can be printed is another matter in each version
        case _:
            return repr(part)


def command_sha256(command: str) -> str | None:
    """SHA-256 of the scripts that a command names; None where it names none that is a file here.

    Scripts are files that end as Python's, R's, Julia's, a shell's and their like, and a program that
    begins with ``#!``. What these import or read is not looked at, nor is what ``-m`` names.
    """
    words = shlex.split(command)
    digests = []
    for word in words:
        with suppress(OSError, ValueError):  # no file, or a word that cannot be the name of one
            content = Path(word).read_bytes() if word == words[0] or word.endswith(_SCRIPTS) else b""
            if content.startswith(b"#!") or word.endswith(_SCRIPTS):
                digests.append(_script_sha256(word, content))
    return _sha256(" ".join(digests).encode()) if digests else None


def _script_sha256(name: str, content: bytes) -> str:
    if not name.endswith(".py"):
        return _sha256(content)
    return code_sha256(content.decode("utf-8", errors="surrogateescape"))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
