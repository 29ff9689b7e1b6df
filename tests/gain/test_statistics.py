import json
import math

import numpy as np
import pytest

from synthaug.gain.statistics import Interval, bootstrap_interval, student_quantile, verdict


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.999])
def test_student_quantiles_are_those_of_scipy(level) -> None:
    stats = pytest.importorskip("scipy.stats")
    for degrees in [*range(1, 31), 100, 1001]:
        expected = stats.t.ppf((1 + level) / 2, degrees)
        assert student_quantile(level, degrees) == pytest.approx(expected, rel=1e-7)


def test_textbook_quantiles() -> None:
    assert [round(student_quantile(0.95, n), 3) for n in (1, 2, 3, 4, 9)] == [
        12.706,
        4.303,
        3.182,
        2.776,
        2.262,
    ]


def test_a_unit_counts_once_however_many_seeds_it_has() -> None:
    interval = bootstrap_interval({"dog": [1.0, 2.0, 3.0], "cows": [5.0], "libby": [0.0, 2.0]})
    assert interval.mean == pytest.approx((2 + 5 + 1) / 3)
    assert interval.low < interval.mean < interval.high


def test_same_seed_same_interval_and_forms_are_equal() -> None:
    values = [[0.1, 0.4, 0.2], [0.3, 0.0, 0.5]]
    interval = bootstrap_interval(values, seed=3)
    assert interval == bootstrap_interval(np.array(values), seed=3)
    assert interval == bootstrap_interval(dict(zip("ab", values, strict=True)), seed=3)
    many = np.random.default_rng(0).normal(size=(12, 5))
    assert bootstrap_interval(many, seed=3) != bootstrap_interval(many, seed=4)
    # One unit: its seeds are the repetitions.
    assert bootstrap_interval({"dog": values[0]}) == bootstrap_interval(values[0])
    assert bootstrap_interval([[v] for v in values[0]]) == bootstrap_interval(values[0])


def test_the_order_of_the_values_changes_no_bit() -> None:
    units = {"dog": [0.1, 0.4], "cows": [9.0, 7.0], "libby": [0.2], "car": [-1.0], "swan": [0.0]}
    units["dog"] = [0.1, 0.4, 0.7]
    turned = {unit: values[::-1] for unit, values in reversed(units.items())}
    assert bootstrap_interval(units) == bootstrap_interval(turned)
    assert bootstrap_interval([3.0, 1.0, 9.0, 2.0]) == bootstrap_interval([9.0, 3.0, 2.0, 1.0])


@pytest.mark.parametrize(("count", "students"), [(4, True), (9, True), (10, False)])
def test_high_levels_of_few_values_are_students(count: int, students: bool) -> None:
    values = np.random.default_rng(0).normal(size=count) ** 2
    interval = bootstrap_interval(values, level=0.99)
    reach = student_quantile(0.99, count - 1) * values.std(ddof=1) / count**0.5
    assert (interval.high - interval.mean == pytest.approx(reach)) == students
    assert bootstrap_interval(values).high - interval.mean != pytest.approx(reach)


def test_level_widens() -> None:
    values = np.random.default_rng(0).normal(size=12)
    inner, outer = (bootstrap_interval(values, level=level) for level in (0.8, 0.99))
    assert outer.low < inner.low < inner.high < outer.high


def test_many_values_give_the_normal_interval() -> None:
    values = np.random.default_rng(0).normal(3, 2, 400)
    interval = bootstrap_interval(values, draws=10_000)
    reach = 1.96 * values.std(ddof=1) / 20
    assert interval.low == pytest.approx(values.mean() - reach, abs=0.02)
    assert interval.high == pytest.approx(values.mean() + reach, abs=0.02)


def test_between_units_counts_and_not_only_between_seeds() -> None:
    # Seeds agree to the digit, units do not: five units stay five observations.
    units = np.array([-2.0, -1.0, 0.5, 1.0, 4.0])
    repeated = bootstrap_interval(np.repeat(units[:, None], 50, 1))
    single = bootstrap_interval(units)
    assert repeated.high - repeated.low == pytest.approx(single.high - single.low, rel=0.02)


@pytest.mark.parametrize(
    ("shape", "unit_spread"),
    [
        *(((units,), 0.0) for units in (2, 3, 4, 5, 10)),
        *((shape, spread) for shape in ((2, 5), (3, 3), (5, 3), (10, 5)) for spread in (0.0, 2.0)),
    ],
)
def test_false_alarms_and_coverage(shape, unit_spread) -> None:
    rng = np.random.default_rng(7)
    repetitions, alarms = 300, 0
    for number in range(repetitions):
        values = rng.normal(size=shape)
        if len(shape) == 2:
            values += unit_spread * rng.normal(size=(shape[0], 1))
        interval = bootstrap_interval(values, draws=1000, seed=number)
        alarms += verdict(interval) != "no difference shown"
    # Shifting every value shifts the interval: a false alarm is a mean that is not covered.
    assert 0.02 <= alarms / repetitions <= 0.09


@pytest.mark.parametrize("values", [[1.0, 4.0], [1.0, 4.0, 2.0]])
def test_two_or_three_values_have_students_interval(values) -> None:
    reach = student_quantile(0.95, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    expected = (np.mean(values), np.mean(values) - reach, np.mean(values) + reach)
    assert bootstrap_interval(values) == pytest.approx(expected)


def test_shift_and_scale_carry_over() -> None:
    values = np.random.default_rng(2).normal(size=(4, 3))
    first, second = bootstrap_interval(values), bootstrap_interval(5 + 2 * values)
    assert second == pytest.approx([5 + 2 * v for v in first])


def test_a_clear_gain_is_found() -> None:
    rng = np.random.default_rng(1)
    found = [
        verdict(bootstrap_interval(1.3 + rng.normal(size=(10, 5)), draws=1000, seed=i))
        for i in range(50)
    ]
    assert found.count("helps") == 50
    assert verdict(bootstrap_interval(-1.3 + rng.normal(size=(10, 5)))) == "hurts"


def test_identical_arms_show_no_difference() -> None:
    interval = bootstrap_interval(np.zeros((3, 5)))
    assert interval == (0, 0, 0)
    assert verdict(interval) == "no difference shown"


@pytest.mark.parametrize("values", [[0.3], {"dog": [0.3]}, [[0.3]]])
def test_one_value_shows_nothing(values) -> None:
    interval = bootstrap_interval(values)
    assert interval == (0.3, -math.inf, math.inf)
    assert verdict(interval) == "no difference shown"


def test_verdicts() -> None:
    assert verdict(Interval(1, 0.1, 2)) == "helps"
    assert verdict(Interval(1, 0, 2)) == "no difference shown"
    assert verdict(Interval(-1, -2, -0.1)) == "hurts"
    assert verdict(Interval(1e-16, 1e-16, 2e-16)) == "no difference shown"
    assert verdict(Interval(-1e-16, -2e-16, -1e-16)) == "no difference shown"


def test_interval_is_plain_numbers() -> None:
    interval = bootstrap_interval(np.float32([1, 2, 3]))
    assert [type(number) for number in interval] == [float] * 3
    assert json.loads(json.dumps(interval._asdict())) == interval._asdict()


@pytest.mark.parametrize("values", [[], {}, {"dog": []}, [[1.0], []], [1.0, math.nan]])
def test_missing_values_are_refused(values) -> None:
    with pytest.raises(ValueError, match="an interval needs"):
        bootstrap_interval(values)
