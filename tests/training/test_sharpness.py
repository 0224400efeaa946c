"""Sharpness of functions whose curvature and whose maximum in the box are known."""

from __future__ import annotations

import numpy as np
import pytest

from batchscope.training.sharpness import BOX, box_sharpness, top_eigenvalue

RNG = np.random.default_rng(4)


def matrix(eigenvalues: np.ndarray) -> np.ndarray:
    turned = np.linalg.qr(RNG.normal(size=(len(eigenvalues), len(eigenvalues))))[0]
    return turned @ np.diag(eigenvalues) @ turned.T


@pytest.mark.parametrize("size", [1, 2, 3, 40])
def test_the_largest_eigenvalue_is_linear_algebras(size: int):
    # The one of largest magnitude is negative: it is not asked for.
    values = np.concatenate([[3.0, -9.0], RNG.uniform(-1, 1, 38)])[:size]
    found = top_eigenvalue(matrix(values).__matmul__, size)
    assert found == pytest.approx(values.max(), rel=1e-6)


def test_an_eigenvalue_is_the_same_each_time_and_nan_where_it_is_not_found():
    crowded = np.linspace(0, 1, 20_000)
    assert np.isnan(top_eigenvalue(crowded.__mul__, len(crowded)))
    apart = np.append(crowded, 4.0)
    first, second = (top_eigenvalue(apart.__mul__, len(apart)) for _ in range(2))
    assert first == second == pytest.approx(4.0, rel=1e-8)


def test_products_that_are_not_finite_give_no_eigenvalue():
    assert np.isnan(top_eigenvalue(lambda vector: vector * np.nan, 30))


@pytest.mark.parametrize("centre", [0.0, 3e-4, 2.0])
def test_the_sharpness_of_a_bowl_is_its_height_at_the_boxs_highest_corner(centre: float):
    weights, steep = RNG.normal(size=500), RNG.uniform(0.1, 30, 500)
    middle = weights + centre * RNG.choice([-1, 1], 500)  # 0: at the minimum, where no gradient leads away

    def bowl(at: np.ndarray) -> tuple[float, np.ndarray]:
        return 0.2 + float(steep @ (at - middle) ** 2), 2 * steep * (at - middle)

    width = BOX * (np.abs(weights) + 1)
    low = bowl(weights)[0]
    high = 0.2 + steep @ (np.abs(weights - middle) + width) ** 2
    assert box_sharpness(bowl, weights) == pytest.approx(100 * (high - low) / (1 + low), rel=1e-3)


def test_a_maximum_inside_the_box_is_found():
    weights = np.zeros(50)
    top = RNG.uniform(-0.8, 0.8, 50) * BOX

    def hill(at: np.ndarray) -> tuple[float, np.ndarray]:
        return 1 - 1e5 * float(((at - top) ** 2).sum()), -2e5 * (at - top)

    low = hill(weights)[0]
    assert box_sharpness(hill, weights) == pytest.approx(100 * (1 - low) / (1 + low), rel=1e-4)


def test_a_plain_has_no_sharpness_and_what_is_not_finite_has_none_to_tell():
    assert box_sharpness(lambda at: (0.5, np.zeros_like(at)), np.ones(4)) == 0.0
    assert np.isnan(box_sharpness(lambda at: (np.nan, at), np.ones(4)))
