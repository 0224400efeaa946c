"""A training function, carried to another process."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cloudpickle

from batchscope.errors import TrainingError
from batchscope.own.handle import TrialHandle
from batchscope.own.source import code_sha256
from batchscope.own_study import FunctionSpec, study_name

__all__ = ["PackedFunction", "TrainFunction", "function_name", "function_spec", "pack", "unpack"]

TrainFunction = Callable[[TrialHandle], object]


@dataclass(frozen=True)
class PackedFunction:
    """A function as bytes, and the places where the modules lie that it needs.

    Attributes:
        content: As cloudpickle made it.
        path: The folders from which this program imports.
    """

    content: bytes
    path: Sequence[str]


def function_spec(function: TrainFunction) -> FunctionSpec:
    """What a study file says of a function."""
    named = _named(function)
    name = f"{named.__module__}:{named.__qualname__}"
    try:
        source = inspect.getsource(named)
    except (OSError, TypeError):  # made by exec, or in another language
        return FunctionSpec(name=name)
    return FunctionSpec(name=name, sha256=code_sha256(source))


def function_name(function: TrainFunction) -> str:
    """A name for the function's study: its own."""
    return study_name(_named(function).__name__)


def pack(function: TrainFunction) -> PackedFunction:
    """Makes a function ready to be sent to workers.

    What the program itself defines, notebooks and lambdas included, goes along by value; what lies
    in modules is imported there.

    Raises:
        TrainingError: It holds something that cannot be sent.
    """
    try:
        content: bytes = cloudpickle.dumps(function)
    except Exception as error:  # whatever it holds raises what it likes
        raise TrainingError(
            f"{function_spec(function).name}: the function must be such that it can be sent to worker "
            f"processes with all that it uses, but: {error}; open files, connections and the like within it"
        ) from error
    return PackedFunction(content, tuple(sys.path))


def unpack(packed: PackedFunction) -> TrainFunction:
    """The function, in a worker.

    Raises:
        TrainingError: Something that it needs cannot be had here.
    """
    sys.path[:] = packed.path
    try:
        # It comes through the pipe from the run that started this process.
        function: TrainFunction = cloudpickle.loads(packed.content)
    except Exception as error:
        raise TrainingError(
            "the training function, and what it uses, must be importable in worker processes, but: "
            f"{type(error).__name__}: {error}; install the module or put its folder on PYTHONPATH"
        ) from error
    return function


def _named(function: TrainFunction) -> type | Callable[..., object]:
    """Whoever has a name and a source: the function within a partial one, the class of a callable object."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    return function if hasattr(function, "__qualname__") else type(function)
