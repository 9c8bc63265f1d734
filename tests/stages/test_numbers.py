import pytest

from stages.numbers import count, duration, percent, rate, size


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (count(1234567), "1,234,567"),
        (count(0.256), "0.26"),
        (size(1023), "1023 B"),
        (size(1536), "1.5 KiB"),
        (size(3 * 1024**4), "3.0 TiB"),
        (duration(0.44), "0.4 s"),
        (duration(59.6), "1 min 0 s"),
        (duration(7800), "2 h 10 min"),
        (rate(10, 0), "–"),
        (rate(1000, 2), "500"),
        (rate(1, 8), "0.12"),
        (percent(1, 3), "33.3 %"),
        (percent(0, 0), "–"),
    ],
)
def test_numbers_read_well(shown: str, expected: str) -> None:
    assert shown == expected
