"""Every written form, read back by what reads it in practice or by our own reader."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from velollm_ollama.readers import parse_settings, read_settings
from velollm_ollama.version import Version
from velollm_ollama.writers import FORMS, docker, write

from velollm_core.errors import VeloError

MODERN, OLD = Version(0, 33, 0), Version(0, 24, 0)
PLAIN = {"OLLAMA_FLASH_ATTENTION": "1", "OLLAMA_KV_CACHE_TYPE": "q8_0", "OLLAMA_KEEP_ALIVE": "30m"}
AWKWARD = {"OLLAMA_MODELS": r"""/mnt/it's "100%" $HOME\big `disk`; rm -rf""", "OLLAMA_EDITOR": "vi -u NONE"}
PRINTABLE = st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp"), exclude_characters="\x85")
values = st.text(PRINTABLE, min_size=1, max_size=20)


@pytest.mark.parametrize("form", [form for form in FORMS if form not in (".docker", ".ps1")])
@pytest.mark.parametrize("given_settings", [PLAIN, AWKWARD, {}])
def test_every_form_reads_back(form: str, given_settings: dict[str, str]) -> None:
    assert parse_settings(write(given_settings, form, MODERN), form) == given_settings


@settings(max_examples=60)
@given(values.filter(lambda text: text == text.strip() and not text.startswith("~")))
def test_any_value_survives_every_form(value: str) -> None:
    for form in (".sh", ".env", ".conf", ".launchctl", ".yaml"):
        assert parse_settings(write({"OLLAMA_MODELS": value}, form, MODERN), form) == {"OLLAMA_MODELS": value}


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a POSIX shell")
def test_a_shell_reads_the_exports() -> None:
    script = write(AWKWARD, ".sh", MODERN) + 'printf "%s|%s" "$OLLAMA_MODELS" "$OLLAMA_EDITOR"\n'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == f"{AWKWARD['OLLAMA_MODELS']}|{AWKWARD['OLLAMA_EDITOR']}"


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a POSIX shell")
def test_a_shell_splits_the_docker_options_right() -> None:
    done = subprocess.run(["sh", "-c", f"printf '%s\\n' {docker(AWKWARD)}"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [word for name, value in AWKWARD.items() for word in ("-e", f"{name}={value}")]


def test_a_drop_in_has_its_header_and_escapes_what_systemd_expands() -> None:
    lines = write(AWKWARD, ".conf", MODERN).splitlines()
    assert "[Service]" in lines
    assert lines.index("[Service]") < next(index for index, line in enumerate(lines) if line.startswith("Environment="))
    assert r"\"100%%\"" in write(AWKWARD, ".conf", MODERN)


def test_powershell_doubles_its_quotes() -> None:
    script = write({"OLLAMA_MODELS": "C:\\it's ‘here’"}, ".ps1", MODERN)
    assert "SetEnvironmentVariable('OLLAMA_MODELS', 'C:\\it''s ‘‘here’’', 'User')" in script


@pytest.mark.parametrize(
    ("given_settings", "version", "words"),
    [
        ({"OLLAMA_NUM_GPU": "999"}, MODERN, "num_gpu"),
        ({"OLLAMA_NEW_ENGINE": "1"}, MODERN, "gone since"),
        ({"OLLAMA_NO_SUCH": "1"}, MODERN, "no version"),
        ({"OLLAMA_FLASH_ATTENTION": "off"}, MODERN, "write 1 or 0"),
        ({"OLLAMA_GPU_OVERHEAD": "8G"}, MODERN, "plain number"),
        ({"OLLAMA_KV_CACHE_TYPE": "q8_0", "OLLAMA_FLASH_ATTENTION": "0"}, MODERN, "flash attention"),
        ({"LLAMA_ARG_CACHE_RAM": "64"}, OLD, "0.30"),
        ({"OLLAMA_IGPU_ENABLE": "1"}, OLD, "came with"),
        ({"OLLAMA_MODELS": "a\nb"}, MODERN, "line break"),
        ({"A B": "1"}, MODERN, "not one of"),
    ],
)
def test_what_ollama_would_not_read_as_written_is_refused(
    given_settings: dict[str, str], version: Version, words: str
) -> None:
    with pytest.raises(VeloError, match=words) as caught:
        write(given_settings, ".sh", version)
    assert "\n" not in str(caught.value)


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(VeloError, match=r"\.sh"):
        write(PLAIN, ".toml")


def test_files_are_told_by_their_content(tmp_path: Path, recordings: Path) -> None:
    drop_in = tmp_path / "override.conf"
    drop_in.write_text('[Service]\nEnvironment="OLLAMA_NUM_PARALLEL=2" OLLAMA_DEBUG=1\n', encoding="utf-8")
    assert read_settings(drop_in).settings == {"OLLAMA_DEBUG": "1", "OLLAMA_NUM_PARALLEL": "2"}
    listed = tmp_path / "compose.yaml"
    listed.write_text("services:\n  ollama:\n    environment:\n      - OLLAMA_DEBUG=1\n", encoding="utf-8")
    assert read_settings(listed).settings == {"OLLAMA_DEBUG": "1"}
    assert read_settings(recordings / "parallel_4" / "server.log").settings["OLLAMA_NUM_PARALLEL"] == "4"
    with pytest.raises(VeloError, match="cannot be read"):
        read_settings(tmp_path / "none")
