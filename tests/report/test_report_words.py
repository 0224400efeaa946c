from __future__ import annotations

import pytest

from batchscope.report.words import Level, direction, direction_phrase, figure_text, level_sentence


def levels(*values: float) -> list[Level]:
    return [Level(16 * 2**index, value) for index, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "way"),
    [
        ((0.9,), "single"),
        ((0.9, 0.9049), "flat"),
        ((0.9, 0.906), "rises"),
        ((0.906, 0.9), "falls"),
        ((0.98, 0.967, 0.833, 0.736), "falls"),
        ((0.90, 0.9101, 0.95, 0.80), "uneven"),
        ((0.90, 0.85, 0.95), "uneven"),
        # An extreme inside that is no more than the tolerance beyond an end does not count.
        ((0.90, 0.9049, 0.80), "falls"),
        ((0.90, 0.9051, 0.80), "uneven"),
        ((0.90, 0.7949, 0.80), "uneven"),
    ],
)
def test_direction_of_levels(values: tuple[float, ...], way: str) -> None:
    assert direction(levels(*values)) == way


def test_the_edge_between_flat_and_rising_is_the_tolerance() -> None:
    assert direction(levels(0.0, 0.25), tolerance=0.25) == "rises"
    assert direction(levels(0.0, 0.25), tolerance=0.2500001) == "flat"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ((0.98, 0.736), "Accuracy falls from 0.980 at batch 16 to 0.736 at batch 32 (epoch 20)"),
        ((0.736, 0.98), "Accuracy rises from 0.736 at batch 16 to 0.980 at batch 32 (epoch 20)"),
        ((0.98, 0.979), "Accuracy hardly depends on batch size: 0.979 to 0.980 (epoch 20)"),
        ((0.98,), "Accuracy is 0.980 at batch 16 (epoch 20)"),
        (
            (0.9, 0.95, 0.8, 0.9),
            "Accuracy is highest at batch 32 (0.950) and lowest at batch 64 (0.800) (epoch 20)",
        ),
    ],
)
def test_level_sentence(values: tuple[float, ...], sentence: str) -> None:
    assert level_sentence("Accuracy", levels(*values), "(epoch 20)") == sentence


def test_direction_phrase_pairs_the_verb_with_its_figures() -> None:
    assert direction_phrase(levels(0.98, 0.7)) == ("falls with batch size", "0.980 to 0.700")
    assert direction_phrase(levels(0.5, 0.9, 0.1)) == (
        "is highest at batch 32 and lowest at batch 64",
        "0.900 and 0.100",
    )


@pytest.mark.parametrize(("value", "text"), [(0.9804, "0.980"), (-0.0004, "0.000"), (-0.25, "\u22120.250")])
def test_figure_text(value: float, text: str) -> None:
    assert figure_text(value) == text
