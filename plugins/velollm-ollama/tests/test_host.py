"""OLLAMA_HOST: what people write, and where Ollama then listens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from velollm_ollama.host import parse_host


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://0.0.0.0:11434"),
        ("0.0.0.0:8080", "http://0.0.0.0:8080"),
        (":8080", "http://:8080"),
        ("example.com", "http://example.com:11434"),
        ("http://example.com", "http://example.com:80"),
        ("https://example.com", "https://example.com:443"),
        ("https://example.com:8443/api", "https://example.com:8443/api"),
        ("example.com/ollama", "http://example.com:11434/ollama"),
        ("[::1]", "http://[::1]:11434"),
        ("::1", "http://[::1]:11434"),
        ("[::1]:9", "http://[::1]:9"),
        ("1.2.3.4:99999", "http://1.2.3.4:11434"),
        ("1.2.3.4:port", "http://1.2.3.4:11434"),
        ("http://1.2.3.4:-1", "http://1.2.3.4:80"),
        ("1.2.3.4:", "http://1.2.3.4:11434"),
        ("ollama.com", "https://ollama.com:443"),
        (' "1.2.3.4:5" ', "http://1.2.3.4:5"),
        ("::ffff:1.2.3.4", "http://1.2.3.4:11434"),
    ],
)
def test_the_address(text: str, url: str) -> None:
    assert parse_host(text).url == url


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("0.0.0.0:5", "http://127.0.0.1:5"),
        ("[::]:5", "http://[::1]:5"),
        (":5", "http://127.0.0.1:5"),
        ("box:5", "http://box:5"),
    ],
)
def test_every_address_is_none_to_call(text: str, url: str) -> None:
    assert parse_host(text).connectable.url == url


def test_a_replaced_port_is_said() -> None:
    assert "99999" in (parse_host("box:99999").note or "")
    assert parse_host("box:9").note is None


@given(st.text(alphabet="[]:./0123456789abht\"' ", max_size=24))
def test_any_text_gives_an_address_with_a_valid_port(text: str) -> None:
    assert 0 <= int(parse_host(text).port) <= 65535
