"""config.toml and the variables above it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velollm_core.config import Config, Connection, config_dir, connection, load_config, variable
from velollm_core.errors import VeloError


def write(text: str) -> Path:
    config_dir().mkdir(parents=True, exist_ok=True)
    path = config_dir() / "config.toml"
    path.write_text(text)
    return path


def test_no_file_is_an_empty_one() -> None:
    assert load_config() == Config()


def test_a_whole_file() -> None:
    write('default_backend = "vllm"\n[backends.vllm]\nurl = "http://gpu:8000"\n[floors]\ncontext = 8192\ndecode = 10')
    config = load_config()
    assert config.default_backend == "vllm"
    assert config.backends["vllm"] == Connection(url="http://gpu:8000")
    assert (config.min_context, config.min_decode) == (8192, 10.0)


def test_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    write('[backends.llamacpp]\nurl = "http://file"\napi_key = "from-file"')
    monkeypatch.setenv("VELOLLM_LLAMACPP_URL", "http://environment")
    assert connection("llamacpp") == Connection(url="http://environment", api_key="from-file")
    assert variable("my-backend", "api_key") == "VELOLLM_MY_BACKEND_API_KEY"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("default_backend = 3", "default_backend must be text, found 3"),
        ("backends = 1", r"\[backends\] must be a table"),
        ("[backends]\nvllm = 'x'", r"\[vllm\] must be a table"),
        ("[floors]\ncontext = true", "context must be a number"),
        ("[floors", "cannot be read"),
    ],
)
def test_a_broken_file_is_one_line(text: str, says: str) -> None:
    path = write(text)
    with pytest.raises(VeloError, match=says) as raised:
        load_config()
    assert str(raised.value).startswith(str(path))


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    write(text)
    with contextlib.suppress(VeloError):
        assert isinstance(load_config(), Config)
