"""Sizes and times as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from blockyard.cli import units

SUFFIXES = {"": 0, "B": 0, "K": 1, "KiB": 1, "kb": 1, "M": 2, "MiB": 2, "G": 3, "g": 3, "T": 4, "P": 5}


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("64K", 65536),
        ("1M", 1 << 20),
        ("10G", 10 << 30),
        ("1.5G", 3 << 29),
        ("2 TiB", 2 << 40),
        ("0.5K", 512),
        (" 7b ", 7),
        ("9223372036854775807", 2**63 - 1),
    ],
)
def test_a_size_is_binary(text, size):
    assert units.parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "K", "-1", "1X", "1.2.3", "0x10", "1e3", "64 K K", "١٢", "inf", "nan", "1,5G"]
)
def test_what_is_no_size_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match="64K"):
        units.parse_size(text)


@pytest.mark.parametrize("text", ["0.3", "1.0001K"])
def test_part_of_a_byte_is_refused(text):
    with pytest.raises(ValueError, match="whole number of bytes"):
        units.parse_size(text)


@pytest.mark.parametrize("text", ["8E", "9223372036854775808", "99999999999T"])
def test_a_size_past_the_largest_offset_is_refused(text):
    with pytest.raises(ValueError, match="largest size"):
        units.parse_size(text)


@given(some.integers(0, 2**62), some.sampled_from(sorted(SUFFIXES)))
def test_every_whole_number_with_a_suffix_means_exactly_that(number, suffix):
    exact = number * 1024 ** SUFFIXES[suffix]
    if exact > units.MAX_SIZE:
        with pytest.raises(ValueError, match="largest"):
            units.parse_size(f"{number}{suffix}")
    else:
        assert units.parse_size(f"{number}{suffix}") == exact


@given(some.text(max_size=12))
def test_any_text_is_a_size_or_a_value_error(text):
    try:
        assert 0 <= units.parse_size(text) <= units.MAX_SIZE
    except ValueError as error:
        assert str(error)


@given(some.integers(0, 2**63 - 1))
def test_a_printed_size_read_again_is_close(value):
    printed = units.size(value)
    assert len(printed) <= 8
    number, _, unit = printed.partition(" ")
    again = float(number) * 1024 ** (units.PREFIXES.find(unit[0]) + 1 if unit != "B" else 0)
    assert abs(again - value) <= value * 0.0051


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (1023 * 1024, "1 MiB"),
        (3 << 29, "1.5 GiB"),
    ],
)
def test_sizes_are_printed_in_three_digits(value, text):
    assert units.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(850, "850 ns"), (12_345, "12.3 us"), (1_250_000, "1.25 ms"), (3.4e9, "3.40 s"), (1e12, "1000 s")],
)
def test_latencies_are_printed_in_three_digits(value, text):
    assert units.short_time(value) == text


@pytest.mark.parametrize(("value", "text"), [(7, "0:07"), (754, "12:34"), (3723, "1:02:03"), (-1, "0:00")])
def test_long_times_are_printed_as_on_a_clock(value, text):
    assert units.clock_time(value) == text


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30), ("1.5s", 1.5), ("200ms", 0.2), ("5m", 300), ("1h", 3600)]
)
def test_times_have_units(text, seconds):
    assert units.parse_time(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "1d", "-1s", "1 1"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match="no time"):
        units.parse_time(text)
