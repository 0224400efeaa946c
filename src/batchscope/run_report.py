"""The report of a run: what the store holds, put together for history files, pictures and page."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from batchscope.analysis import (
    Analysis,
    Plan,
    RecipeFacts,
    Settings,
    Target,
    WorkersUsed,
    analyze,
    load_source,
)
from batchscope.errors import HistoryError, RunFolderError
from batchscope.history import encode_history
from batchscope.loading import dump_study
from batchscope.own_study import AnyStudy, CommandStudy, FunctionStudy, without_secrets
from batchscope.records import TrialState
from batchscope.report.content import DataSample, PageContent, Provenance
from batchscope.report.files import replace_file
from batchscope.report.notebook import RunCard, Trouble
from batchscope.report.page import write_page
from batchscope.report.pictures import write_pictures
from batchscope.running.folder import RunFolder
from batchscope.running.own_runs import SOURCE_FACT
from batchscope.running.recorder import THREADS_FACT
from batchscope.running.store import Store, TrialStatus
from batchscope.schedule import schedule
from batchscope.spec import LearningRate, Study

__all__ = ["analyze_run", "content_of", "page_content", "run_card", "write_run_report"]

_TROUBLES = (TrialState.FAILED, TrialState.DIVERGED)


def write_run_report(study: AnyStudy, store: Store, folder: Path, settings: Settings | None = None) -> Path:
    """Writes ``history.csv``, ``history.parquet``, every figure and ``report.html``.

    Args:
        study: The study of the run.
        store: Its results, at least one epoch.
        folder: Where to write; files of the same names are replaced.
        settings: Of the analysis; None for the defaults.

    Returns:
        The page's path.

    Raises:
        HistoryError: Nothing is stored yet.
        ReportError: A file cannot be written.
    """
    history = store.history(study.name)
    analysis = analyze_run(study, store, history, settings)
    for suffix in (".csv", ".parquet"):
        replace_file(folder / f"history{suffix}", encode_history(history, suffix))
    content = page_content(study, store, history, analysis)
    write_pictures(content.figures, len(analysis.facts.batch_sizes), folder)
    page = folder / "report.html"
    write_page(content, page)
    return page


def content_of(source: str, settings: Settings) -> PageContent:
    """Analyses a source and puts together what its page shows.

    Args:
        source: A run's folder, a history file, or ``published``.
        settings: Of the analysis.

    Raises:
        HistoryError: The history cannot be read or analysed.
        RunFolderError: The folder holds no run.
    """
    place = RunFolder(Path(source))
    if source == "published" or not place.path.is_dir():
        history = load_source(source)
        return PageContent(Path(source).stem, history, analyze(history, settings))
    study = place.study()
    with Store(place.database) as store:
        history = store.history(study.name)
        return page_content(study, store, history, analyze_run(study, store, history, settings))


def analyze_run(
    study: AnyStudy, store: Store, history: pd.DataFrame, settings: Settings | None = None
) -> Analysis:
    """Analyses a run's history by what its study says about where trials end.

    Args:
        study: The study of the run.
        store: Its results; it tells the number of training examples.
        history: As stored.
        settings: Of the analysis; None for the defaults. Without targets of its own the study's are taken.

    Raises:
        HistoryError: The history cannot be analysed.
    """
    settings = settings or Settings()
    if not settings.targets:
        settings = dataclasses.replace(settings, targets=tuple(study.targets or ()))
    stages = study.stages if isinstance(study, Study) else []
    tables = [stage.learning_rate for stage in stages if isinstance(stage.learning_rate, LearningRate)]
    recipe = RecipeFacts(
        # What a warm-up leaves in the history looks like learning rates of their own.
        learning_rate_retuned=False if tables else None,
        learning_rate_rule=next((table.rule for table in tables if table.rule != "constant"), None),
        plan=_plan(study, store),
        until_ci=study.until_ci,
        workers=_workers(store),
    )
    return analyze(history, settings, recipe)


def _workers(store: Store) -> tuple[WorkersUsed, ...]:
    """How the trials of each session shared the machine, each way once."""
    names = ("workers", THREADS_FACT)
    told = [[facts.get(name, "") for name in names] for _, _, facts in store.sessions()]
    used = [WorkersUsed(int(one[0]), int(one[1])) for one in told if all(map(str.isdecimal, one))]
    return tuple(dict.fromkeys(used))


def _plan(study: AnyStudy, store: Store) -> Plan | None:
    """None where the number of training examples was not stored, as with training code of one's own."""
    kept = store.data()
    if kept is None or not isinstance(study, Study):
        return None
    counts = kept[0].training
    examples = sum(counts) if all(isinstance(count, int) for count in counts) else 0
    least = max(study.batch_sizes) if study.last_batch == "drop" else 1
    if examples < least:
        raise RunFolderError(
            f"a run of this study must have at least {least} training examples, but its database tells of "
            f"{counts} by class"
        )
    statuses = store.trials()
    last = {size: schedule(study, size, examples)[-1].last_epoch for size in study.batch_sizes}
    known = not any(stage.is_open for stage in study.stages)
    return Plan(
        budgets={stage.name: stage.budget for stage in study.stages},
        last_epochs={size: epoch for size, epoch in last.items() if epoch is not None} if known else None,
        targets={
            stage.name: Target(stage.until.metric, stage.until.value, stage.until.epochs)
            for stage in study.stages
            if stage.until is not None
        },
        ended=frozenset(status.trial.name for status in statuses if status.state.is_finished()),
        planned=frozenset(
            (status.trial.batch_size, status.trial.replicate)
            for status in statuses
            if status.state is not TrialState.FAILED
        ),
    )


def page_content(study: AnyStudy, store: Store, history: pd.DataFrame, analysis: Analysis) -> PageContent:
    """Everything that the page of a run shows."""
    return PageContent(
        title=study.name,
        history=history,
        analysis=analysis,
        description=study.description.strip(),
        study_toml=dump_study(without_secrets(study)),
        provenance=_provenance(study, store),
        data=_data_sample(store),
        notices=_notices(store.trials()) + _changes_of_source(store),
    )


def run_card(study: AnyStudy, store: Store, folder: RunFolder) -> RunCard:
    """What a notebook shows of a run, whether it is over, goes on, or has not stored anything yet."""
    statuses, history = store.trials(), store.history(study.name)
    content, reason = None, ""
    if history.empty:
        reason = "No epoch is stored yet."
    else:
        try:
            content = page_content(study, store, history, analyze_run(study, store, history))
        except HistoryError as error:
            reason = f"The history cannot be analysed yet: {error}"
    page = folder.report / "report.html"
    counts = [(str(state), sum(status.state is state for status in statuses)) for state in TrialState]
    return RunCard(
        title=study.name,
        states=tuple((state, number) for state, number in counts if number),
        troubles=tuple(_trouble(status) for status in statuses if status.state in _TROUBLES),
        content=content,
        reason=reason,
        page=str(page) if page.exists() else None,
    )


def _trouble(status: TrialStatus) -> Trouble:
    last = (status.error or "").strip().splitlines()[-1:]
    return Trouble(status.trial.name, str(status.state), status.epochs, "".join(last))


def _notices(statuses: list[TrialStatus]) -> tuple[str, ...]:
    """What must be known before any figure is read: trials that did not complete."""
    notices = []
    for state, text in (
        (TrialState.FAILED, "failed; the same command tries them again"),
        (TrialState.DIVERGED, "diverged: their loss became infinite or undefined"),
        (TrialState.RUNNING, "are not finished; the figures are those so far"),
        (TrialState.WAITING, "have not begun"),
    ):
        names = [status.trial.name for status in statuses if status.state is state]
        if names:
            notices.append(f"{len(names)} of {len(statuses)} trials {text}: {', '.join(names)}.")
    return tuple(notices)


def _changes_of_source(store: Store) -> tuple[str, ...]:
    """That training code of one's own was changed while the run went on."""
    told = [(started, facts[SOURCE_FACT]) for started, _, facts in store.sessions() if SOURCE_FACT in facts]
    changes = [later[0] for earlier, later in pairwise(told) if earlier[1] != later[1]]
    text = (
        "The training code was changed while the run went on: epochs from before and after "
        f"{', '.join(changes)} are not of the same code."
    )
    return (text,) if changes else ()


def _provenance(study: AnyStudy, store: Store) -> Provenance | None:
    sessions = store.sessions()
    if not sessions:
        return None
    started, ended = sessions[0][0], sessions[-1][1]
    summary = store.data()
    rows = [
        ("started", started),
        ("ended", ended or "not yet"),
        ("sessions", str(len(sessions))),
        ("seed", f"{study.seed}, {_replicates(study, store)}"),
        *_trained_by(without_secrets(study)),
    ]
    if summary is not None:
        rows += [("data", summary[0].source), ("fingerprint of the data", summary[0].fingerprint)]
    rows += [(name, value) for name, value in _merged(sessions).items() if name != "command"]
    return Provenance(tuple(rows), sessions[0][2].get("command"))


def _replicates(study: AnyStudy, store: Store) -> str:
    """The replicates of the trials, of which some batch sizes may have more than others."""
    most: dict[int, int] = {}
    for trial in (status.trial for status in store.trials()):
        most[trial.batch_size] = max(most.get(trial.batch_size, 0), trial.replicate)
    counts = set(most.values()) or {study.replicates}
    fewer = "" if len(counts) == 1 else f" (at some batch sizes 1 to {min(counts)})"
    return f"replicates 1 to {max(counts)}{fewer}"


def _trained_by(study: AnyStudy) -> list[tuple[str, str]]:
    match study:
        case FunctionStudy(function=function):
            return [("function", function.name)]
        case CommandStudy(command=command):
            return [("trained by", command)]
        case Study():
            network = [] if study.model.network is None else [("network", study.model.network)]
            return [
                ("split seed", str(study.data.split_seed)),
                *network,
                ("weights", study.model.weights),
            ]


def _merged(sessions: Sequence[tuple[str, str | None, Mapping[str, str]]]) -> dict[str, str]:
    """Facts of all sessions; where a later one had another version or machine, both are told."""
    values: dict[str, list[str]] = {}
    for _, _, facts in sessions:
        for name, value in facts.items():
            known = values.setdefault(name, [])
            if value not in known:
                known.append(value)
    return {name: ", then ".join(known) for name, known in values.items()}


def _data_sample(store: Store) -> DataSample | None:
    kept = store.data()
    if kept is None:
        return None
    summary, samples = kept
    is_table = len(summary.shape) == 1
    if not samples and not is_table:
        return None
    try:
        images = _pictures([sample.png for sample in samples])
        labels = tuple(summary.classes.index(sample.label) for sample in samples)
    except Exception as error:  # Pillow's decoders raise many kinds of error on malformed bytes
        reason = str(error) or type(error).__name__
        raise RunFolderError(f"the run's database must hold a sample of its images, but: {reason}") from error
    return DataSample(
        images=images,
        labels=labels,
        ids=tuple(sample.id for sample in samples),
        classes=summary.classes,
        training_counts=summary.training,
        validation_counts=summary.validation,
        skipped=summary.skipped,
        features=summary.shape[0] if is_table else 0,
        notes=summary.notes,
    )


def _pictures(files: Sequence[bytes]) -> npt.NDArray[np.uint8]:
    """Images of one size, shape (k, height, width, 3 or 1)."""
    if not files:
        return np.empty((0, 1, 1, 3), np.uint8)
    pictures = np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in files])
    return pictures[..., None] if pictures.ndim == 3 else pictures
