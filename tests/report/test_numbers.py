import pytest

from synthaug.report.numbers import signed


@pytest.mark.parametrize(
    ("points", "text"),
    [
        (2.14, "+2.1"),
        (-0.06, "-0.1"),
        (0.0, "0.0"),
        (-0.0, "0.0"),
        (0.0249, "+0.025"),
        (-0.05, "-0.1"),
        (-0.000301, "-0.00030"),
        (-2e-14, "0.0"),  # of sums of floats
    ],
)
def test_a_small_difference_keeps_two_digits_and_zero_has_no_sign(points, text):
    assert signed(points) == text
