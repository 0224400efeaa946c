"""Studies of training code of one's own: a Python function, or a command of any kind.

They have what every study has; how a trial trains is their code's business.
"""

from __future__ import annotations

import re
import shlex
import string
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from batchscope.masking import masked, secrets_in
from batchscope.recipe import Count, Rate
from batchscope.spec import BaseStudy, Study
from batchscope.strict import Strict

__all__ = [
    "PLACEHOLDERS",
    "AnyOwnStudy",
    "AnyStudy",
    "CommandStudy",
    "FunctionSpec",
    "FunctionStudy",
    "OwnStudy",
    "study_kind",
    "study_name",
    "without_secrets",
]

PLACEHOLDERS = ("batch_size", "replicate", "seed", "learning_rate", "folder", "trial")
"""What may stand in braces in a command; each is the trial's."""


class FunctionSpec(Strict):
    """The Python function that trains.

    Attributes:
        name: Module and qualified name, as ``__main__:train``.
        sha256: Of its source without comments, docstrings and layout, in hexadecimal digits; none where
            the source cannot be had. A run that goes on with another source says so; a finished one is
            refused. Simplified: what the function calls is not looked at.
    """

    name: Annotated[str, Field(min_length=1)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


class OwnStudy(BaseStudy):
    """A study whose training is somebody's own.

    Attributes:
        learning_rates: Given to the code as each trial's learning rate: one, or several of which each
            is tried at every batch size and replicate; without it the code has its own.
        epochs: How many epochs each trial is going to report; for the time that is left.
    """

    learning_rates: Annotated[list[Rate], Field(min_length=1)] | None = None
    epochs: Count | None = None

    @field_validator("learning_rates")
    @classmethod
    def _learning_rates_are_distinct(cls, value: list[float] | None) -> list[float] | None:
        if value is not None and len(set(value)) < len(value):
            raise ValueError("each learning rate must be listed once")
        return value

    @property
    def grid(self) -> list[float] | None:
        """The learning rates that each batch size's best is taken from, ascending; None without several."""
        rates = sorted(self.learning_rates or [])
        return rates if len(rates) > 1 else None


class FunctionStudy(OwnStudy):
    """A study whose trials are calls of a Python function.

    Attributes:
        function: The function.
    """

    function: FunctionSpec


class CommandStudy(OwnStudy):
    """A study whose trials are runs of a command.

    Attributes:
        command: Program and arguments, split as a shell would, but run without one. The words of
            `PLACEHOLDERS` in braces stand for the trial's; a brace itself is written twice.
        records: File that the program writes its records to, with the same placeholders, of which
            some must tell trials apart; none where they are lines of its standard output.
    """

    command: Annotated[str, Field(min_length=1)]
    records: Annotated[str, Field(min_length=1)] | None = None

    @property
    def secrets(self) -> list[str]:
        """What looks like a secret in the command; to be masked wherever it is told."""
        return secrets_in(self.command)

    @field_validator("command")
    @classmethod
    def _command_can_be_split(cls, value: str) -> str:
        try:
            words = shlex.split(value)
        except ValueError as error:
            raise ValueError(f"must be words and quotes as in a shell, but: {error}") from error
        if not words:
            raise ValueError("must name a program")
        return value

    @field_validator("command", "records")
    @classmethod
    def _placeholders_are_known(cls, value: str | None) -> str | None:
        used = _placeholders(value or "")
        unknown = [name for name in used if name not in PLACEHOLDERS]
        if unknown:
            known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
            raise ValueError(
                f"what stands in braces must be one of {known}, but {{{unknown[0]}}} is not; "
                "a brace that stands for itself is written twice"
            )
        return value

    @model_validator(mode="after")
    def _learning_rates_are_given(self) -> CommandStudy:
        used = _placeholders(self.command) + _placeholders(self.records or "")
        if "learning_rate" in used and self.learning_rates is None:
            raise ValueError("learning_rates must be given, for the command asks for {learning_rate}")
        return self

    @model_validator(mode="after")
    def _each_trial_has_its_records(self) -> CommandStudy:
        used = set(_placeholders(self.records or ""))
        if self.records is None or used & {"trial", "folder"}:
            return self
        rate_is_told = self.grid is None or "learning_rate" in used
        if "batch_size" in used and used & {"replicate", "seed"} and rate_is_told:
            return self
        rate = "" if self.grid is None else ", and {learning_rate}, for there are several"
        raise ValueError(
            "records must be another file for each trial, but nothing in it tells them apart: "
            f"{self.records}; put {{trial}} or {{folder}} in it, or {{batch_size}} with {{replicate}} or "
            f"{{seed}}{rate}"
        )


AnyOwnStudy = FunctionStudy | CommandStudy
AnyStudy = Study | AnyOwnStudy


def study_kind(raw: Mapping[str, Any]) -> type[AnyStudy]:
    """The kind of study that a parsed file means, by the key that no other has."""
    if "command" in raw:
        return CommandStudy
    return FunctionStudy if "function" in raw else Study


def without_secrets(study: AnyStudy) -> AnyStudy:
    """The study as it may be told to others: what looks like a secret in its command is masked."""
    if not isinstance(study, CommandStudy):
        return study
    return study.model_copy(update={"command": masked(study.command, study.secrets)})


def study_name(text: str) -> str:
    """What can be a study's name, and so that of a folder, of the name of a function or program."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:64] or "own"


def _placeholders(text: str) -> list[str]:
    """What stands in braces, with whatever it is to be formatted by."""
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"a brace that stands for itself must be written twice: {error}") from error
    return [
        f"{name}{f'!{conversion}' if conversion else ''}{f':{form}' if form else ''}"
        for _, name, form, conversion in parts
        if name is not None
    ]
