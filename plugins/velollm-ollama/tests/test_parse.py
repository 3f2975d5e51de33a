"""Ollama's rules for the text of a variable, quirks included."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from velollm_ollama.parse import (
    FOREVER,
    clean,
    format_duration,
    level_name,
    parse_bool,
    parse_duration,
    parse_int,
    parse_keep,
    parse_uint,
)

FIVE_MINUTES = 300 * 10**9


@pytest.mark.parametrize(
    "word", ["1", "t", "T", "TRUE", "true", "True", "off", "no", "none", "disabled", "auto", "tRUE", "2"]
)
def test_every_word_go_does_not_know_is_true(word: str) -> None:
    assert parse_bool(word, False) is True


@pytest.mark.parametrize("word", ["0", "f", "F", "FALSE", "false", "False", " 0 ", "'0'", '"false"'])
def test_the_six_ways_to_say_no(word: str) -> None:
    assert parse_bool(word, True) is False


@pytest.mark.parametrize("word", ["", "  ", '""', "''"])
def test_nothing_is_the_default(word: str) -> None:
    assert parse_bool(word, True) is True
    assert parse_bool(word, False) is False


def test_quotes_come_off_after_spaces_and_not_the_other_way_round() -> None:
    assert clean(' "1" ') == "1"
    assert clean("\"' 1 '\"") == " 1 "
    assert clean("\x1c1") == "\x1c1"  # Go does not count it as space, Python would


@pytest.mark.parametrize(
    ("text", "number"),
    [("8", 8), ("08", 8), ("18446744073709551615", 2**64 - 1), ("18446744073709551616", None), ("8k", None),
     ("+8", None), ("-1", None), ("1_000", None), ("0x10", None), ("1.0", None), ("", None), ("٣", None)],
)  # fmt: skip
def test_a_number_is_plain_digits(text: str, number: int | None) -> None:
    assert parse_uint(text) == number


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("5m", FIVE_MINUTES), ("5m0s", FIVE_MINUTES), ("1h30m", 5400 * 10**9), ("1.5s", 1_500_000_000),
        (".5s", 500_000_000), ("1.s", 10**9), ("-1s", -(10**9)), ("+1s", 10**9), ("0", 0), ("-0", 0),
        ("1ns", 1), ("1us", 1000), ("1µs", 1000), ("1μs", 1000), ("1ms", 10**6), ("100", None), ("", None), ("+", None),
        ("1d", None), ("soon", None), ("5 m", None), (".s", None), ("1h ", None), ("2562047h47m16.854775807s", FOREVER),
        ("2562047h47m16.854775808s", None), ("5M", None),
    ],
)  # fmt: skip
def test_durations_are_gos(text: str, nanoseconds: int | None) -> None:
    assert parse_duration(text) == nanoseconds


@given(st.integers(min_value=0, max_value=FOREVER))
def test_a_duration_reads_back_as_it_was_printed(nanoseconds: int) -> None:
    assert parse_duration(format_duration(nanoseconds)) == nanoseconds


def test_durations_print_as_in_the_log() -> None:
    assert format_duration(FIVE_MINUTES) == "5m0s"
    assert format_duration(FOREVER) == "2562047h47m16.854775807s"
    assert format_duration(90 * 10**9) == "1m30s"
    assert [format_duration(value) for value in (0, 1, 1500, 1_500_000)] == ["0s", "1ns", "1.5µs", "1.5ms"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30m", 1800 * 10**9), ("30", 30 * 10**9), ("-1", FOREVER), ("-5m", FOREVER), ("0", 0), ("soon", FIVE_MINUTES),
     ("1d", FIVE_MINUTES), ("", FIVE_MINUTES), ('"30m"', 1800 * 10**9)],
)  # fmt: skip
def test_keep_alive_takes_durations_and_seconds_and_swallows_the_rest(text: str, expected: int) -> None:
    assert parse_keep(text, FIVE_MINUTES, zero_is_forever=False) == expected


def test_zero_is_forever_for_the_load_timeout_only() -> None:
    assert parse_keep("0", FIVE_MINUTES, zero_is_forever=True) == FOREVER


def test_seconds_that_overflow_wrap_as_they_do_in_go() -> None:
    assert parse_keep("9223372037", FIVE_MINUTES, zero_is_forever=False) == FOREVER


@pytest.mark.parametrize(
    ("text", "level"),
    [("", "INFO"), ("0", "INFO"), ("false", "INFO"), ("1", "DEBUG"), ("true", "DEBUG"), ("2", "DEBUG-4"),
     ("3", "DEBUG-8"), ("off", "INFO"), ("-1", "WARN"), ("-2", "ERROR"), ("-3", "ERROR+4")],
)  # fmt: skip
def test_the_log_level(text: str, level: str) -> None:
    assert level_name(text) == level


@given(st.text(max_size=30))
def test_no_text_makes_the_parsers_fail(text: str) -> None:
    parse_bool(text, False)
    level_name(text)
    parse_uint(text)
    parse_int(text)
    assert 0 <= parse_keep(text, FIVE_MINUTES, zero_is_forever=False) <= FOREVER
