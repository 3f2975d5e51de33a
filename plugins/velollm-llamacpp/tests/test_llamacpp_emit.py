"""Plans written down, and started from what was written."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from velollm_llamacpp.backend import LlamaCppBackend
from velollm_llamacpp.emit import SUFFIXES, emit

from velollm_core.backends.setting import Plan, Setting, Value
from velollm_core.errors import BackendError


def plan(model: str = "/models/a model's 50%.gguf", **values: Value) -> Plan:
    settings: dict[str, Value] = {"--ctx-size": 4096, "--kv-unified": False, "--cache-ram": -1, "--flash-attn": "auto"}
    settings.update({f"--{name.replace('_', '-')}": value for name, value in values.items()})
    found = [Setting(name, value, "flag", "so that\nit fits", "rule") for name, value in settings.items()]
    return Plan("llamacpp", model, tuple(found))


WORDS = ["--ctx-size", "4096", "--no-kv-unified", "--cache-ram", "-1", "--flash-attn", "auto"]


def test_the_shell_script_starts_exactly_that(tmp_path: Path) -> None:
    script = tmp_path / "run.sh"
    script.write_text(emit(plan(), ".sh"))
    echo = tmp_path / "llama-server"
    echo.write_text('#!/bin/sh\nfor word; do printf "%s\\n" "$word"; done\n')
    echo.chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", script, "--port", "9"],
        env={"LLAMA_SERVER": str(echo)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["-m", "/models/a model's 50%.gguf", *WORDS, "--port", "9"]
    assert "# --ctx-size 4096: so that it fits (rule)" in script.read_text()


def test_the_environment_file_holds_one_variable_a_line() -> None:
    lines = [line for line in emit(plan(), ".env").splitlines() if not line.startswith("#")]
    assert dict(line.split("=", 1) for line in lines) == {
        "LLAMA_ARG_MODEL": "/models/a model's 50%.gguf",
        "LLAMA_ARG_CTX_SIZE": "4096",
        "LLAMA_ARG_KV_UNIFIED": "false",
        "LLAMA_ARG_CACHE_RAM": "-1",
        "LLAMA_ARG_FLASH_ATTN": "auto",
    }


def test_what_has_no_variable_is_told() -> None:
    assert "# Only on the command line: --threads-batch 4\n" in emit(plan(threads_batch=4), ".env")


def test_json_holds_command_environment_and_reasons() -> None:
    written = json.loads(emit(plan(), ".json"))
    assert written["schema"] == "velollm.llamacpp/1"
    assert written["command"] == ["llama-server", "-m", "/models/a model's 50%.gguf", *WORDS]
    assert written["settings"][0] == {
        "name": "--ctx-size",
        "value": 4096,
        "where": "flag",
        "reason": "so that\nit fits",
        "evidence": "rule",
    }


def test_the_unit_quotes_as_systemd_reads(tmp_path: Path) -> None:
    text = emit(plan(), ".service")
    assert '  -m "/models/a model\'s 50%%.gguf" \\\n' in text
    assert "ExecStart=/usr/bin/env llama-server \\\n" in text
    assert text.count("\\\n") == text[text.index("ExecStart") :].partition("Restart")[0].count("\n") - 1
    if verify := shutil.which("systemd-analyze"):
        unit = tmp_path / "llama.service"
        unit.write_text(text)
        done = subprocess.run([verify, "verify", "--user", unit], capture_output=True, text=True, check=False)
        assert "ExecStart" not in done.stderr


def test_powershell_quotes_as_it_reads() -> None:
    text = emit(plan(), ".ps1")
    assert "& llama-server `\r\n  -m '/models/a model''s 50%.gguf' `\r\n" in text
    assert text.endswith("  @args\r\n")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_names_the_model_and_explains(suffix: str) -> None:
    text = LlamaCppBackend().emit(plan("tiny.gguf"), suffix)
    assert "tiny.gguf" in text
    assert "so that" in text


@pytest.mark.parametrize("suffix", [".yaml", "", ".SH"])
def test_other_formats_are_refused_by_name(suffix: str) -> None:
    with pytest.raises(BackendError, match=r"\.sh, \.env, \.json"):
        emit(plan(), suffix)


def test_a_setting_that_nobody_knows_is_not_written() -> None:
    with pytest.raises(BackendError, match="no setting of llama-server"):
        emit(plan(gpu_magic=1), ".sh")
