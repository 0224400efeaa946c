"""What damages a valid input: its bytes, its lines, or the values of the tables in it."""

from __future__ import annotations

import copy
import datetime
import math
from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

__all__ = ["NASTY_BYTES", "NASTY_TEXTS", "VALUES", "damaged_bytes", "damaged_lines", "mutate_values"]

NASTY_TEXTS = (
    "",
    " ",
    ".",
    "..",
    "~nobody/x",
    "a\0b",
    "\r\n",
    "\t",
    "\x7f\x1b[2J",
    "\ufeff",
    "\u202eevil\u2028",
    "é",
    "👩‍👩‍👧",
    "\U0010ffff",
    "</script><script>alert(1)</script>",
    "{{7*7}}",
    "'\"\\",
    "=1+1",
    "/etc/passwd",
    "../../x",
    "C:\\x",
    "x" * 5_000,
    "a.b",
    "head",
    "imagenet",
    "synthetic-cactus",
    "pypi:a==1/w.h5",
    "w.h5#sha256=" + "0" * 64,
)
INTEGERS = (
    0,
    1,
    2,
    -1,
    10,
    255,
    2**16,
    2**31,
    2**32,
    2**53 + 1,
    2**63 - 1,
    2**63,
    -(2**63) - 1,
    10**30,
    10**400,
)
FLOATS = (
    0.0,
    -0.0,
    1.0,
    0.5,
    1.5,
    math.nan,
    math.inf,
    -math.inf,
    1e-320,
    5e-324,
    1.7e308,
    1e16,
    1e-7,
    0.1 + 0.2,
)
NASTY_BYTES = (
    b"\0",
    b"\xff",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\r",
    b"\n",
    b'"',
    b"'",
    b",",
    b"\x80" * 9,
    b"\xc3(",
)

_DATES = (
    datetime.date(1, 1, 1),
    datetime.time(23, 59, 59, 999_999),
    datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC),
)


def _nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


LEAVES = st.one_of(
    st.sampled_from(INTEGERS),
    st.integers(-100, 100_000),
    st.sampled_from(FLOATS),
    st.floats(),
    st.sampled_from(NASTY_TEXTS),
    st.text(max_size=8),
    st.booleans(),
    st.sampled_from(_DATES),
)
VALUES = st.one_of(
    LEAVES,
    LEAVES,
    st.lists(LEAVES, max_size=3),
    st.dictionaries(st.sampled_from(("", "name", "from_layer", "é", "a.b")), LEAVES, max_size=2),
    st.integers(1, 40).map(_nested),
)
"""Anything that TOML and JSON can hold; extremes more often than chance would bring them."""


@st.composite
def damaged_bytes(draw: st.DrawFn, content: bytes, tokens: Sequence[bytes] = NASTY_BYTES) -> bytes:
    """Some places overwritten, cut out, doubled or filled with something else; or the end cut off."""
    for _ in range(draw(st.integers(1, 5))):
        start = draw(st.integers(0, len(content)))
        end = min(start + draw(st.sampled_from((0, 1, 1, 2, 4, 8, 64))), len(content))
        how = draw(st.sampled_from(("token", "token", "bytes", "bytes", "flip", "double", "cut", "end")))
        if how == "token":
            middle = draw(st.sampled_from(tokens))
        elif how == "bytes":
            middle = draw(st.binary(min_size=end - start, max_size=end - start))
        elif how == "flip":
            middle = bytes(byte ^ 1 << draw(st.integers(0, 7)) for byte in content[start:end][:1])
            end = min(start + 1, len(content))
        elif how == "double":
            middle = content[start:end] * 2
        else:
            middle = b""
            end = len(content) if how == "end" else end
        content = content[:start] + middle + content[end:]
    return content


@st.composite
def damaged_lines(draw: st.DrawFn, text: str, nasty: Sequence[str]) -> str:
    """Lines deleted, doubled, swapped, cut, joined, or nasty ones put in."""
    lines = text.split("\n")
    for _ in range(draw(st.integers(1, 4))):
        here, there = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
        how = draw(st.sampled_from(("delete", "double", "swap", "cut", "join", "insert", "insert")))
        if how == "delete" and len(lines) > 1:
            del lines[here]
        elif how == "double":
            lines.insert(there, lines[here])
        elif how == "swap":
            lines[here], lines[there] = lines[there], lines[here]
        elif how == "cut":
            lines[here] = lines[here][: draw(st.integers(0, 20))]
        elif how == "join":
            lines[here] += lines[there]
        else:
            lines.insert(here, draw(st.sampled_from(nasty)))
    return "\n".join(lines)


def mutate_values(draw: st.DrawFn, value: Any, names: Sequence[str], most: int = 3) -> Any:
    """A copy of nested tables and lists of which a few entries are not what they were.

    Args:
        draw: Of a composite strategy.
        value: Tables and lists; left alone.
        names: Keys that entries may be renamed to.
        most: Largest number of changes.
    """
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(0, most))):
        entries = list(_entries(value))
        if not entries:
            break
        holder, key = draw(st.sampled_from(entries))
        how = draw(
            st.sampled_from(("nudge", "nudge", "replace", "delete", "double", "swap", "rename", "wrap"))
        )
        if how == "nudge":
            holder[key] = _nudged(draw, holder[key])
        elif how == "replace":
            holder[key] = draw(VALUES)
        elif how == "delete":
            del holder[key]
        elif how == "wrap":
            holder[key] = draw(st.sampled_from(([holder[key]], {"from_layer": holder[key]})))
        elif how == "swap":
            other, there = draw(st.sampled_from(entries))
            holder[key], other[there] = copy.deepcopy(other[there]), copy.deepcopy(holder[key])
        elif isinstance(holder, list):
            holder.insert(0, copy.deepcopy(holder[key]))
        elif how == "double":
            holder[draw(st.sampled_from(names))] = copy.deepcopy(holder[key])
        else:
            holder[draw(st.sampled_from(names))] = holder.pop(key)
    return value


def _entries(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (table, key) and (list, index), the outer ones first."""
    pairs = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
    for key, item in pairs:
        yield value, key
        if isinstance(item, dict | list):
            yield from _entries(item)


def _nudged(draw: st.DrawFn, value: Any) -> Any:
    """Something of the same type, near or far."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        as_float = float(max(min(value, 10**300), -(10**300)))  # beyond 10^308 there is none
        return draw(
            st.sampled_from((value + 1, value - 1, -value, value * 2, value * 10**9, value + 2**63, as_float))
        )
    if isinstance(value, float):
        return draw(st.sampled_from((value / 2, value * 2, -value, value * 1e300, value * 1e-320, 1 + value)))
    if isinstance(value, str):
        return draw(st.sampled_from((value[1:], value * 2, value.upper(), value + "\n", *NASTY_TEXTS)))
    if isinstance(value, list):
        return draw(st.sampled_from((value[::-1], value * 2, value[:1], [], value * 100)))
    return {}
