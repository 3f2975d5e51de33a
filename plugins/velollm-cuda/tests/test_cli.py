"""`velollm cuda` as its users run it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from velollm_cuda.bench import host
from velollm_cuda.cli import ON_CPU, command
from velollm_cuda.testing import write_tiny_model

from velollm_core.errors import VeloError
from velollm_core.testing import Outcome, install_plugin

Run = Callable[..., Outcome]
SMALL = ("--kv-cache-bytes", str(1 << 20), "--max-num-seqs", "8")
# What the machine with the GPU has not, and a bench must not need.
ELSEWHERE = ("pluggy", "cattrs", "click", "rich", "platformdirs", "psutil", "pynvml", "aiohttp", "transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("cli") / "model")


def inside(*arguments: object, stdin: str = "") -> Result:
    """The command in this process, which costs no start."""
    return CliRunner().invoke(command, [str(each) for each in arguments], input=stdin)


def test_generate_writes_text(velollm: Run, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "answers.txt"
    asked = ("--prompt", "Hello", "-p", "World", "--max-tokens", "6", "--ignore-eos", "--n", "2", *SMALL, "-o", file)
    done = velollm("cuda", "generate", folder, *asked)
    assert done.code == 0, done.stderr
    assert done.stderr == f"{ON_CPU}\n"
    assert done.stdout == file.read_text()
    assert inside("generate", folder, *asked[:-2]).stdout == done.stdout


def test_generate_reads_stdin(folder: Path) -> None:
    given = ("generate", folder, "--max-tokens", 6, "--ignore-eos", *SMALL)
    assert inside(*given, stdin="Hello").stdout == inside(*given, "--prompt", "Hello").stdout


def test_generate_writes_json(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "answers.json"
    done = inside("generate", folder, "--prompt", "Hi", "--chat", "--max-tokens", "3", "--json", *SMALL, "-o", file)
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document == json.loads(file.read_text())
    assert document["schema"] == "velollm.cuda.generate/1"
    (answer,) = document["answers"]
    assert answer["prompt"] == "<s><|user|>Hi</s><|assistant|>"
    (output,) = answer["outputs"]
    assert len(output["token_ids"]) <= 3
    assert output["finish_reason"] in ("length", "stop")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("generate", "missing/model/folder", "--prompt", "x"), 1, "missing/model/folder: no such folder"),
        (("generate", "MODEL", "--prompt", "x" * 600, *SMALL), 1, "to produce make"),
        (("generate", "MODEL", "--prompt", "x", "--top-p", "2", *SMALL), 1, "top_p is 2"),
        (("generate", "MODEL", "--prompt", "x", "--max-tokens", "0"), 2, "--max-tokens"),
        (("generate",), 2, "MODEL"),
        (("bench", "kernels"), 1, "bench kernels: needs an NVIDIA GPU"),
        (("bench", "everything"), 2, "'everything' is not one of"),
        (("serve", "MODEL", "--port", "70000"), 2, "--port"),
        (("serve", "MODEL", "--host", "not.an.address.invalid"), 1, "cannot listen on"),
        (("make-test-model", "/proc/nobody/writes/here"), 1, "cannot be written"),
    ],
)
def test_what_goes_wrong_is_one_line(folder: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    done = inside(*(folder if each == "MODEL" else each for each in arguments))
    assert done.exit_code == code
    if code == 1:
        assert isinstance(done.exception, VeloError)
        assert words in " ".join(str(done.exception).split())
    else:
        assert words in done.stderr


def test_a_taken_port_is_found_before_the_model_is_loaded(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = inside("serve", "never/loaded", "--port", port)
    assert str(done.exception).startswith(f"cannot listen on 127.0.0.1:{port}: ")


SCHEDULER = """
from velollm_core.engine.continuous import ContinuousScheduler
from velollm_core.hookspecs import hookimpl

@hookimpl
def schedule(limits, blocks):
    print("mine was asked")
    return ContinuousScheduler(limits, blocks)
"""
BROKEN = """
from velollm_core.hookspecs import hookimpl

@hookimpl
def allocate_kv(): return 42
"""


def test_a_strangers_scheduler_drives_the_engine(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(install_plugin(tmp_path, "their-scheduler", SCHEDULER))
    done = inside("generate", folder, "-p", "Hello", "--max-tokens", 3, *SMALL)
    assert done.exit_code == 0
    assert done.stderr == f"mine was asked\n{ON_CPU}\n"


def test_a_strangers_broken_part_is_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(install_plugin(tmp_path, "their-blocks", BROKEN))
    done = inside("generate", folder, "-p", "Hello", *SMALL)
    assert str(done.exception) == (
        "plugin 'their-blocks' (velollm-their-blocks 1.0): hook 'allocate_kv' gave int, which is no BlockManager; "
        "VELOLLM_BLOCK_PLUGINS=their-blocks leaves it out"
    )


def test_an_error_reaches_the_user_as_one_line(velollm: Run) -> None:
    done = velollm("cuda", "generate", "missing/model/folder", "--prompt", "x")
    assert done.code == 1
    assert done.stderr.splitlines() == ["velollm: missing/model/folder: no such folder, and not a hub id (owner/name)"]


def test_bench_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "ROUNDS", 1)
    done = inside("bench", "host", "--json", "-o", tmp_path / "host.txt")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["schema"] == "velollm.cuda.bench/1"
    assert [each["name"] for each in document["measurements"]][1] == "host, a prefix of 1024 tokens"
    assert (tmp_path / "host.txt").read_text().startswith("host on ")


def test_models_for_whoever_has_none(tmp_path: Path) -> None:
    done = inside("make-test-model", tmp_path / "large", "--shape", "1b", "--json")
    assert json.loads(done.stdout)["shape"] == "1b"
    assert not list((tmp_path / "large").glob("*.safetensors"))
    done = inside("make-test-model", tmp_path / "tiny")
    assert done.stdout.startswith("Wrote ")
    again = write_tiny_model(tmp_path / "again")
    assert (tmp_path / "tiny/model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()


def test_the_bench_needs_little() -> None:
    script = (
        f"import sys\nsys.modules.update(dict.fromkeys({ELSEWHERE!r}))\n"
        "import velollm_cuda.bench.__main__, velollm_cuda.bench.decode, velollm_cuda.bench.prefill\n"
        "import velollm_cuda.bench.end_to_end, velollm_cuda.bench.host, velollm_cuda.bench.start\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_help_costs_no_torch() -> None:
    script = (
        "import sys\nfrom velollm_cuda.cli import command\n"
        "try: command(['serve', '--help'])\nexcept SystemExit: pass\n"
        "assert not {'torch', 'triton', 'tokenizers', 'aiohttp'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
