"""What the executor tells, stored and then shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from batchscope.masking import masked
from batchscope.own_study import AnyStudy
from batchscope.records import BatchProgress, EpochRecord, Trial, TrialState
from batchscope.running.features import FeatureCleaner
from batchscope.running.folder import RunFolder
from batchscope.running.growth import check_metric
from batchscope.running.layout import Layout, told
from batchscope.running.messages import SOURCE_FACTS, STAGE_FACT
from batchscope.running.progress import Watcher
from batchscope.running.store import Store

__all__ = ["THREADS_FACT", "Recorder", "threads_before"]

THREADS_FACT = "threads of a worker"


@dataclass(frozen=True)
class Recorder:
    """Stores what the executor tells, then passes it on to the watcher.

    Attributes:
        study: The study.
        store: The run's results.
        place: The run's folder.
        watcher: Told after each write.
        session: Takes the facts.
        cleaner: Deletes features that no trial needs any more.
        reason: Why the workers are those that were chosen, where nothing was measured.
        said: Names of facts that were told; all workers tell the same.
    """

    study: AnyStudy
    store: Store
    place: RunFolder
    watcher: Watcher
    session: int
    cleaner: FeatureCleaner
    reason: str
    said: set[str] = field(default_factory=set)

    def note(self, text: str) -> None:
        """Something worth telling that belongs to no trial."""
        self.watcher.note(text)

    def ready(self, facts: Mapping[str, str]) -> None:
        """A worker is set up."""
        before = sources_before(self.store)
        self.store.update_session(self.session, facts)
        for name, fact in facts.items():
            if name in self.said:
                continue
            self.said.add(name)
            if name.startswith(STAGE_FACT):
                self.watcher.note(f"{name}: {fact}")
            elif before.get(name, fact) != fact:
                self.watcher.note(
                    f"{name.removesuffix(' sha256')}: its file has changed since epochs of this run were "
                    f"stored (sha256 {before[name]}, now {fact}); trials before and after may not be of one "
                    "network"
                )

    def chosen(self, layout: Layout, rates: Mapping[Layout, float]) -> None:
        """The workers are to be these."""
        reason = told(rates) if rates else self.reason
        facts = {
            "workers": str(layout.workers),
            THREADS_FACT: str(layout.threads),
            "choice of workers": reason,
        }
        self.store.update_session(self.session, facts)
        self.watcher.note(f"{layout}: {reason}")

    def started(self, trial: Trial) -> None:
        """A trial begins or goes on."""
        self.store.set_state(trial, TrialState.RUNNING)
        last = self.store.last_epoch(trial)
        self.watcher.started(trial, last.examples if last else 0, last.seconds if last else 0.0)

    def batch(self, trial: Trial, progress: BatchProgress) -> None:
        """An epoch got further."""
        self.watcher.batch(trial, progress)

    def epoch(self, trial: Trial, record: EpochRecord) -> None:
        """An epoch ended.

        Raises:
            HistoryError: The record does not go with those that are stored.
            StudyError: It is the first, and no trial is going to report what the study needs.
        """
        if record.unreported and self.store.unreported() is None:
            check_metric(self.study, record.unreported)
        self.store.add(trial, record)
        self.watcher.epoch(trial, record)

    def discarded(self, trial: Trial, epoch: int, *, replaced: bool) -> None:
        """The trial's code has begun anew."""
        last = self.store.last_epoch(trial)
        self.store.discard(trial, epoch)
        epochs = f"epochs {epoch} to {last.epoch if last else epoch}"
        if replaced:
            told = f"with other figures than before: {epochs} are discarded and replaced"
        else:
            told = f"and ended earlier than before: {epochs} are discarded"
        self.watcher.note(f"{trial.name} began anew, {told}")
        self.store.update_session(self.session, {f"discarded of {trial.name}": epochs})

    def ended(self, trial: Trial, error: str | None) -> None:
        """A trial is over."""
        error = None if error is None else masked(error)  # the screen is told the same as the store
        state = self._state(trial, error)
        self.store.set_state(trial, state, error)
        if state.is_finished():
            self.place.forget(trial)
        self.cleaner.ended(trial)
        self.watcher.ended(trial, state, error)

    def _state(self, trial: Trial, error: str | None) -> TrialState:
        if error is not None:
            return TrialState.FAILED
        last = self.store.last_epoch(trial)
        return TrialState.COMPLETE if last is not None and last.finite else TrialState.DIVERGED


def sources_before(store: Store) -> Mapping[str, str]:
    """Of which files the network was in the last session that told them; nothing where no epoch is stored."""
    if not any(status.epochs for status in store.trials()):
        return {}
    facts = [facts for _, _, facts in store.sessions()]
    return {name: each[name] for each in facts for name in SOURCE_FACTS if name in each}


def threads_before(store: Store) -> int | None:
    """Threads of a worker in the last session that trained; None where no epoch is stored."""
    if not any(status.epochs for status in store.trials()):
        return None
    known = [facts[THREADS_FACT] for _, _, facts in store.sessions() if THREADS_FACT in facts]
    return int(known[-1]) if known else None
