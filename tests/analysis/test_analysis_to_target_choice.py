"""Which learning rate a batch size stands at, by the updates that each takes to a target."""

from __future__ import annotations

import numpy as np

from batchscope.analysis.to_target import rates_to_target
from batchscope.analysis.to_target_results import Outcome, RateToTarget, TrialToTarget

Spent = float | tuple[float, Outcome]


def trials(table: dict[float, tuple[Spent | None, ...]], size: int = 16) -> list[TrialToTarget]:
    """By learning rate, what each replicate took or how it ended; None where it has not begun."""
    made = []
    for rate, each in table.items():
        for replicate, spent in enumerate(each, start=1):
            if spent is None:
                continue
            updates, outcome = spent if isinstance(spent, tuple) else (spent, "reached")
            name = f"b{size}-lr{rate:g}-r{replicate}"
            made.append(
                TrialToTarget(size, rate, replicate, name, outcome, updates, updates - 10, None, None)  # type: ignore[arg-type]
            )
    return made


def best(rows: list[RateToTarget]) -> RateToTarget:
    [found] = [row for row in rows if row.best]
    return found


def test_rates_are_held_against_each_other_over_the_replicates_that_they_share() -> None:
    """The largest has no second replicate, in which the others are slower; medians are told over all."""
    rows = rates_to_target(trials({0.05: (480, 500), 0.1: (430, 620), 0.2: (450, None)}), 0.95)
    assert [row.updates.value for row in rows] == [490, 525, 450]
    assert [row.best for row in rows] == [False, True, False]
    assert not best(rows).at_edge
    # Over all three as before, where there is no replicate that all have.
    rows = rates_to_target(trials({0.05: (480, 500), 0.1: (430, 620), 0.2: (None, None, 450)}), 0.95)
    assert best(rows).learning_rate == 0.2


def test_by_shared_replicates_a_slow_seed_is_seldom_held_against_a_rate() -> None:
    """Seeds scatter, two rates are 3% apart: by simulation, in 200 studies with a replicate ahead."""
    random = np.random.default_rng(11)
    right = by_all = 0
    for _ in range(200):
        seeds = 1000 * np.exp(random.normal(0, 0.3, size=2))
        found = rates_to_target(trials({0.1: tuple(seeds), 0.2: (1.03 * seeds[0], None)}), 0.95)
        right += found[0].best
        by_all += found[0].updates.value < found[1].updates.value
    assert right == 200
    assert by_all < 140


def test_equal_rates_go_by_their_trials_and_then_by_all_of_these() -> None:
    """All took 270 in the first replicate; of the two that went on the one that was faster then."""
    rows = rates_to_target(trials({0.05: (270, 360), 0.1: (270, 180), 0.2: (270, None)}), 0.95)
    assert best(rows).learning_rate == 0.1
    assert best(rates_to_target(trials({0.1: (270, 180), 0.2: (270, 180)}), 0.95)).learning_rate == 0.1


def test_a_trial_that_has_just_begun_makes_no_replicate_a_shared_one() -> None:
    """Whether it is known to go on, or has gone on for less than others took."""
    made = trials({0.1: (400, 600), 0.2: (450, (50, "censored"))})
    names = frozenset(one.trial for one in made)
    for ended in (None, names - {"b16-lr0.2-r2"}):
        rows = rates_to_target(made, 0.95, ended)
        # Kaplan and Meier know nothing of it but that it is later than 50.
        assert [row.updates.value for row in rows] == [500, 450]
        assert best(rows).learning_rate == 0.1
    gone_on = trials({0.1: (400, 600), 0.2: (450, (600, "censored"))})
    assert best(rates_to_target(gone_on, 0.95)).learning_rate == 0.1


def test_batch_sizes_are_judged_apart() -> None:
    made = trials({0.1: (400, 600), 0.2: (450, None)}, 16) + trials({0.1: (30, 40), 0.2: (20, 35)}, 32)
    found = [row.learning_rate for row in rates_to_target(made, 0.95) if row.best]
    assert found == [0.1, 0.2]


def test_a_rate_at_which_more_trials_missed_the_target_is_passed_over() -> None:
    made = trials(
        {0.1: (110, 120, 130), 0.2: (100, 104, (90, "diverged")), 0.4: (120, 125, (300, "censored"))}
    )
    names = frozenset(one.trial for one in made)
    rows = rates_to_target(made, 0.95, names)
    assert [row.updates.value for row in rows] == [120, 104, 125]
    assert [(row.best, row.passed_over) for row in rows] == [(True, False), (False, True), (False, False)]
    # Of a target that ends nothing nobody knows who missed it.
    by_median = rates_to_target(made, 0.95)
    assert [(row.best, row.passed_over) for row in by_median] == [
        (False, False),
        (True, False),
        (False, False),
    ]


def test_a_trial_that_goes_on_has_missed_nothing() -> None:
    made = trials({0.1: (110, 120, 130), 0.2: (100, 104, (90, "censored"))})
    names = frozenset(one.trial for one in made)
    assert best(rates_to_target(made, 0.95, names - {"b16-lr0.2-r3"})).learning_rate == 0.2
    assert best(rates_to_target(made, 0.95, names)).learning_rate == 0.1


def test_none_is_passed_over_whose_median_is_not_less() -> None:
    made = trials(
        {0.1: (100, 110, (300, "censored")), 0.2: (90, 110, 120), 0.4: (100, 120, (40, "diverged"))}
    )
    rows = rates_to_target(made, 0.95, frozenset(one.trial for one in made))
    assert [row.updates.value for row in rows] == [110, 110, 120]
    assert [(row.best, row.passed_over) for row in rows] == [(False, False), (True, False), (False, False)]


def test_the_edge_is_one_only_where_no_rate_within_is_as_good() -> None:
    """Measured coarsely, rates often get there at the same measurement."""

    def edge(table: dict[float, tuple[Spent | None, ...]]) -> tuple[float | None, bool]:
        found = best(rates_to_target(trials(table), 0.95))
        return found.learning_rate, found.at_edge

    never = ((300, "censored"),) * 3
    assert edge({0.1: (90, 90, 90), 0.2: (90, 90, 90), 0.4: never}) == (0.1, False)
    assert edge({0.1: (90, 90, 90), 0.2: (90, 90, 120), 0.4: never}) == (0.1, False)  # by the median
    assert edge({0.1: (90, 90, 90), 0.2: (90, 90, (300, "censored")), 0.4: never}) == (0.1, True)
    assert edge({0.1: (90, 90, 90), 0.2: (90, 120, 120), 0.4: never}) == (0.1, True)
    assert edge({0.1: (90, 90, 90), 0.2: (120, 120, 120), 0.4: (90, 90, 90)}) == (0.1, True)
    assert edge({0.1: (90, 90, 90), 0.2: (90, 90, 90)}) == (0.1, True)  # there is none within
    # As good in the replicate that all share; that more is known of the other is no reason.
    assert edge({0.1: (90, 80), 0.2: (90, None), 0.4: (120, 130)}) == (0.1, False)
    assert edge({0.1: (90, 70), 0.2: (90, 80), 0.4: (90, None)}) == (0.1, True)
