"""A task on its way: what it carries out, where, and how Ray says that it ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchscope.errors import ClusterError
from batchscope.running.cluster.letters import Lost, Outcome, Unfit
from batchscope.running.pool import Job

if TYPE_CHECKING:
    from ray import ObjectRef

__all__ = ["Flight", "bound_to", "outcome_of", "progress_seconds"]

# Far below what the desk takes, which has records to pass on; progress is for show.
_PROGRESS_LETTERS = 200


@dataclass(eq=False)
class Flight:
    """A task that was submitted.

    Attributes:
        attempt: Its number.
        job: What it carries out.
        node: Where it was sent to.
        begun: Whether its worker has begun with the trial.
    """

    attempt: int
    job: Job
    node: str
    begun: bool = False


def outcome_of(ref: ObjectRef[Any]) -> Outcome | None:
    """How a task ended; what Ray says of one that gave no answer is a loss.

    Returns:
        None where the node was gone before the task came to it.
    """
    import ray

    try:
        outcome: Outcome = ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ray.exceptions.RayError):  # the way to the driver was cut
            return Lost(f"{type(error.cause).__name__}: {error.cause}")
        # The task itself raises nothing else: it could not be loaded.
        return Unfit(
            ClusterError(
                "batchscope must be installed on every node, with the extra for Ray and with what it trains "
                f"with, but on one the task failed: {error}"
            )
        )
    except ray.exceptions.TaskUnschedulableError:
        return None
    except ray.exceptions.RayError as error:
        return Lost(f"{type(error).__name__}: {error}")
    return outcome


def progress_seconds(at_once: int) -> float:
    """How often a trial may tell where its epoch stands, where so many run at once: once a second at most."""
    return max(1.0, at_once / _PROGRESS_LETTERS)


def bound_to(node: str) -> Any:
    """Ray's word for a node.

    Softly bound, a task whose node is gone would wait for ever where no other has room for it.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)
