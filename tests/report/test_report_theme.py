from __future__ import annotations

import colorsys
import itertools

import pytest

from batchscope.report.theme import DARK, LIGHT, Ground, batch_size_colours, chart_config


def luminance(colour: str) -> float:
    """WCAG 2.2's relative luminance."""
    channels = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("ground", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 12, 100])
def test_colours_stand_out_from_the_paper(ground: Ground, count: int) -> None:
    colours = batch_size_colours(count, ground)
    assert len(set(colours)) == count
    assert min(contrast(colour, ground.paper) for colour in colours) >= 3.0


@pytest.mark.parametrize("ground", [LIGHT, DARK], ids=["light", "dark"])
def test_order_reads_in_greyscale(ground: Ground) -> None:
    shades = [luminance(colour) for colour in batch_size_colours(12, ground)]
    assert all(one > other for one, other in itertools.pairwise(shades))


def test_ends_are_the_anchors_and_a_middle_one_is_midway() -> None:
    assert batch_size_colours(5, LIGHT) == LIGHT.anchors
    assert batch_size_colours(1, LIGHT) == (LIGHT.anchors[2],)
    # Nine colours put one halfway between the first two anchors: d97c08 and d2372a.
    assert batch_size_colours(9, LIGHT)[1] == "#d65a19"


@pytest.mark.parametrize("ground", [LIGHT, DARK], ids=["light", "dark"])
def test_text_is_readable(ground: Ground) -> None:
    assert contrast(ground.ink, ground.paper) >= 7
    assert contrast(ground.muted, ground.paper) >= 4.5
    assert contrast(ground.rule, ground.paper) >= 3


def test_hues_agree_on_both_grounds() -> None:
    for light, dark in zip(LIGHT.anchors, DARK.anchors, strict=True):
        hues = [
            colorsys.rgb_to_hls(*(int(c[index : index + 2], 16) / 255 for index in (1, 3, 5)))[0]
            for c in (light, dark)
        ]
        apart = abs(hues[0] - hues[1])
        assert min(apart, 1 - apart) < 0.06


def test_no_text_is_smaller_than_twelve_pixels() -> None:
    def sizes(config: object) -> list[float]:
        if not isinstance(config, dict):
            return []
        own = [value for key, value in config.items() if key.lower().endswith("fontsize")]
        return own + [size for value in config.values() for size in sizes(value)]

    found = sizes(chart_config(("#000000",), LIGHT))
    assert len(found) >= 6
    assert min(found) >= 12
