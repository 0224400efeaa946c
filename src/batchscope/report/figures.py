"""Which figures a report has, in their order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from string import ascii_uppercase

import pandas as pd

from batchscope.analysis.grid import at_chosen
from batchscope.analysis.results import Analysis, StudyFacts
from batchscope.report.by_batch_size import by_batch_size_figure, by_batch_size_info
from batchscope.report.curves import accuracy_or_loss, measures
from batchscope.report.figure import Figure
from batchscope.report.gap import gap_figure, gap_info
from batchscope.report.lag import lag_figure, lag_info
from batchscope.report.learning_rates import learning_rates_figure, learning_rates_info
from batchscope.report.means import means_figure, means_info
from batchscope.report.noise_scale import (
    noise_course_figure,
    noise_course_info,
    noise_scale_figure,
    noise_scale_info,
)
from batchscope.report.pace import throughput_figure, throughput_info
from batchscope.report.replicates import replicates_figure, replicates_info
from batchscope.report.sharpness import sharpness_figure, sharpness_info
from batchscope.report.spread import spread_figure, spread_info
from batchscope.report.terms import terms_figure, terms_info
from batchscope.report.to_target import to_target_figure, to_target_infos
from batchscope.report.together import together_figure, together_info
from batchscope.report.updates import updates_figure, updates_info

__all__ = ["all_figures", "history_figures"]


def history_figures(history: pd.DataFrame, facts: StudyFacts | None = None) -> tuple[Figure, ...]:
    """Figures A to D, which need the history alone.

    A shows accuracy and loss, each where the history has it; the others show accuracy, or loss
    where the history has no accuracy.

    Args:
        history: In standard form, see `batchscope.history.check_history`; of one learning rate for each
            batch size.
        facts: Of its analysis; without, batch sizes are compared at the last epoch that all reached.
    """
    main = accuracy_or_loss(history)
    return (
        *(replicates_figure(replicates_info(history, measure, facts)) for measure in measures(history)),
        together_figure(together_info(history, main, facts)),
        means_figure(means_info(history, main, facts)),
        by_batch_size_figure(by_batch_size_info(history, main, facts)),
    )


def all_figures(history: pd.DataFrame, analysis: Analysis | None) -> tuple[Figure, ...]:
    """Figures A to D, and those that show results of the analysis where there is one.

    A figure whose columns the history lacks is left out; the analysis' notes tell what is missing.
    Those after D are labelled in their order, so that no letter is left out.
    """
    if analysis is None:
        return history_figures(history)
    history = at_chosen(history, analysis.learning_rates)
    found = list(history_figures(history, analysis.facts))
    updates, gap = updates_info(history, analysis), gap_info(analysis)
    terms, lag = terms_info(analysis), lag_info(history, analysis)
    spread, rates = spread_info(analysis), learning_rates_info(analysis)
    pace = throughput_info(analysis)
    noise, course = noise_scale_info(analysis), noise_course_info(analysis)
    sharpness = sharpness_info(analysis)
    made: list[Callable[[str], Figure]] = []
    made += [partial(updates_figure, updates)] if updates is not None else []
    made += [partial(gap_figure, gap)] if gap is not None else []
    made += [partial(terms_figure, terms)] if terms is not None else []
    made += [partial(lag_figure, lag)] if lag is not None else []
    made += [partial(noise_scale_figure, noise)] if noise is not None else []
    made += [partial(noise_course_figure, course)] if course is not None else []
    made += [partial(sharpness_figure, sharpness)] if sharpness is not None else []
    made += [partial(spread_figure, spread)] if spread is not None else []
    made += [partial(learning_rates_figure, rates)] if rates is not None else []
    made += [
        partial(to_target_figure, info, number)
        for number, info in enumerate(to_target_infos(analysis), start=1)
    ]
    made += [partial(throughput_figure, pace)] if pace is not None else []
    found += [figure(label) for figure, label in zip(made, _labels(), strict=False)]
    return tuple(found)


def _labels() -> Iterator[str]:
    """What the figures after D are called: E to Z, then AA, AB and so on."""
    yield from ascii_uppercase[4:]
    yield from ("".join(pair) for pair in itertools.product(ascii_uppercase, repeat=2))
