import pytest

from batchscope.analysis.words import batch_sizes, minus, number, of_quantity, percent


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (number(-0.0125), "\u22120.013"),
        (number(-1e-5), "\u22121e\u221205"),
        (number(-0.0), "0.000"),
        (percent(-0.5), "\u221250%"),
        (percent(-0.004), "0%"),
        (of_quantity(-1234.4), "\u22121,234"),
        (minus(f"{-0.0004:+.3f}"), "0.000"),
        (minus("+0.010"), "+0.010"),
        (minus("-10"), "\u221210"),
    ],
)
def test_minus_signs_are_true_and_zeros_have_none(written: str, read: str) -> None:
    assert written == read


def test_batch_sizes_are_listed_up_to_eight() -> None:
    assert batch_sizes([16]) == "16"
    assert batch_sizes(range(1, 9)) == "1, 2, 3, 4, 5, 6, 7 and 8"
    assert batch_sizes(range(1, 10)) == "1 to 9 (9 of them)"
