from __future__ import annotations

import colorsys
import itertools

import numpy as np
import numpy.typing as npt
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


# Simulation of complete dichromacy in linear sRGB: Machado, Oliveira and Fernandes (2009), A
# physiologically-based model for simulation of color vision deficiency, table of severity 1.
VISION = {
    "usual": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protan": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deutan": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritan": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}


def oklab(colour: str, vision: str) -> npt.NDArray[np.float64]:
    """Ottosson's Oklab coordinates of a colour as it is seen."""
    channels = np.array([int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(VISION[vision]) @ linear, 0, 1)
    to_cones = (
        (0.4122214708, 0.5363325363, 0.0514459929),
        (0.2119034982, 0.6806995451, 0.1073969566),
        (0.0883024619, 0.2817188376, 0.6299787005),
    )
    to_lab = (
        (0.2104542553, 0.7936177850, -0.0040720468),
        (1.9779984951, -2.4285922050, 0.4505937099),
        (0.0259040371, 0.7827717662, -0.8086757660),
    )
    result: npt.NDArray[np.float64] = np.array(to_lab) @ np.cbrt(np.array(to_cones) @ seen)
    return result


@pytest.mark.parametrize("ground", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("vision", list(VISION))
def test_terms_are_told_apart_with_any_colour_vision(ground: Ground, vision: str) -> None:
    for one, other in itertools.combinations(ground.terms, 2):
        assert np.linalg.norm(oklab(one, vision) - oklab(other, vision)) > 0.1, (one, other)
    assert min(contrast(colour, ground.paper) for colour in ground.terms) >= 3.0


@pytest.mark.parametrize("ground", [LIGHT, DARK], ids=["light", "dark"])
def test_terms_do_not_look_like_batch_sizes(ground: Ground) -> None:
    for term in ground.terms:
        for anchor in ground.anchors:
            assert np.linalg.norm(oklab(term, "usual") - oklab(anchor, "usual")) > 0.1, (term, anchor)
