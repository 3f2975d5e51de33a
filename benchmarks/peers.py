"""Load generators that read the same server: how each is started, and what it says it measured."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

PROMPT_TOKENS = 64


@frozen
class Load:
    """``streams`` users who ask again at once, ``requests`` in all, of ``chunks`` chunks each."""

    streams: int
    requests: int
    chunks: int


@frozen
class Said:
    """What a generator reports, in seconds and chunks a second; None where it does not say."""

    ttft_p50: float
    ttft_p99: float | None
    itl_p50: float | None
    rate: float | None


@frozen
class Peer:
    """``command`` gets the program, the server's URL, a folder of its own and the load; ``read`` the same folder."""

    name: str
    command: Callable[[str, str, Path, Load], list[str]]
    read: Callable[[Path, str], Said]


def _velollm(program: str, url: str, folder: Path, load: Load) -> list[str]:
    where = ["--backend", "vllm", "--url", url, "--model", "mock", "--json", "-o", str(folder / "report.json")]
    users = ["--concurrency", str(load.streams), "--requests", str(load.requests)]
    lengths = ["--prompt-tokens", str(PROMPT_TOKENS), "--answer-tokens", str(load.chunks)]
    return [program, "-m", "velollm_core", "benchmark", *where, *users, *lengths]


def _velollm_said(folder: Path, _output: str) -> Said:
    report = json.loads((folder / "report.json").read_text())
    (task,) = report["tasks"]
    ttft = task["metrics"]["ttft"]
    return Said(ttft["p50"], ttft["p99"], task["itl"]["p50"], report["load"]["tokens_per_second"])


def _bare(program: str, url: str, _folder: Path, load: Load) -> list[str]:
    script = str(Path(__file__).with_name("bare_reader.py"))
    return [program, script, url, str(load.streams), str(load.requests)]


def _bare_said(_folder: Path, output: str) -> Said:
    return Said(**json.loads(output))


def _guidellm(program: str, url: str, folder: Path, load: Load) -> list[str]:
    data = f"kind=synthetic_text,prompt_tokens={PROMPT_TOKENS},output_tokens={load.chunks}"
    options = {
        "--backend": f"kind=openai_http,target={url},model=mock",
        "--profile": f"kind=concurrent,streams={load.streams}",
        "--constraint": f"kind=max_requests,count={load.requests}",
        "--tokenizer": f"kind=huggingface_auto,model={write_tokenizer(folder)}",
        "--data": data,
        "--output": f"kind=json,path={folder / 'report.json'}",
    }
    return [program, "run", *(word for pair in options.items() for word in pair), "--disable-progress"]


def _guidellm_said(folder: Path, _output: str) -> Said:
    (benchmark,) = json.loads((folder / "report.json").read_text())["benchmarks"]
    metrics = {
        name: benchmark["metrics"][name]["successful"]
        for name in ("time_to_first_token_ms", "inter_token_latency_ms", "output_tokens_per_second")
    }
    ttft = metrics["time_to_first_token_ms"]["percentiles"]
    itl = metrics["inter_token_latency_ms"]["percentiles"]["p50"]
    return Said(ttft["p50"] / 1e3, ttft["p99"] / 1e3, itl / 1e3, metrics["output_tokens_per_second"]["mean"])


def _aiperf(program: str, url: str, folder: Path, load: Load) -> list[str]:
    what = ["-m", "mock", "--url", url, "--endpoint-type", "completions", "--streaming", "--use-server-token-count"]
    users = ["--concurrency", str(load.streams), "--request-count", str(load.requests)]
    lengths = ["--isl", str(PROMPT_TOKENS), "--osl", str(load.chunks), "--tokenizer", str(write_tokenizer(folder))]
    return [program, "profile", *what, *users, *lengths, "--output-artifact-dir", str(folder / "out"), "--ui", "none"]


def _aiperf_said(folder: Path, _output: str) -> Said:
    report = json.loads((folder / "out" / "profile_export_aiperf.json").read_text())
    ttft, itl, rate = (
        report[name] for name in ("time_to_first_token", "inter_token_latency", "output_token_throughput")
    )
    return Said(ttft["p50"] / 1e3, ttft["p99"] / 1e3, itl["p50"] / 1e3, rate["avg"])


def _vllm(program: str, url: str, folder: Path, load: Load) -> list[str]:
    what = ["--backend", "openai", "--base-url", url, "--model", "mock", "--tokenizer", str(write_tokenizer(folder))]
    users = ["--max-concurrency", str(load.streams), "--num-prompts", str(load.requests)]
    data = [
        "--dataset-name",
        "random",
        "--random-input-len",
        str(PROMPT_TOKENS),
        "--random-output-len",
        str(load.chunks),
    ]
    saved = [
        "--percentile-metrics",
        "ttft,itl",
        "--metric-percentiles",
        "50,99",
        "--save-result",
        "--result-dir",
        str(folder),
    ]
    return [program, "bench", "serve", *what, *users, *data, *saved, "--result-filename", "report.json", "--ignore-eos"]


def _vllm_said(folder: Path, _output: str) -> Said:
    report: Mapping[str, Any] = json.loads((folder / "report.json").read_text())
    itl = report.get("p50_itl_ms", report.get("median_itl_ms"))
    ttft = report.get("p50_ttft_ms", report.get("median_ttft_ms"))
    return Said(
        ttft / 1e3, report["p99_ttft_ms"] / 1e3, itl / 1e3 if itl is not None else None, report["output_throughput"]
    )


PEERS = {
    "velollm": Peer("velollm benchmark", _velollm, _velollm_said),
    "bare": Peer("bare aiohttp reader", _bare, _bare_said),
    "guidellm": Peer("GuideLLM", _guidellm, _guidellm_said),
    "aiperf": Peer("AIPerf", _aiperf, _aiperf_said),
    "vllm": Peer("vllm bench serve", _vllm, _vllm_said),
}
OWN = {"velollm": sys.executable, "bare": sys.executable}


def write_tokenizer(folder: Path) -> Path:
    """A tokenizer of single bytes in ``folder``: the peers want one, and none may be fetched."""
    place = folder / "tokenizer"
    place.mkdir(exist_ok=True)
    vocabulary = {letter: number for number, letter in enumerate(_byte_letters())}
    end = {
        "id": len(vocabulary),
        "content": "<s>",
        "special": True,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
    }
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "vocab": {**vocabulary, "<s>": len(vocabulary)}, "merges": []}
    whole = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [end],
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": model,
    }
    (place / "tokenizer.json").write_text(json.dumps(whole))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "<s>",
        "pad_token": "<s>",
    }
    (place / "tokenizer_config.json").write_text(json.dumps(settings))
    return place


def environment(folder: Path) -> dict[str, str]:
    """The environment of a peer: nothing is written outside of ``folder``."""
    places = {f"XDG_{name}_HOME": str(folder / name.lower()) for name in ("CACHE", "STATE", "CONFIG", "DATA")}
    return {**os.environ, **places, "VELOLLM_ONLY_PLUGINS": "vllm", "COLUMNS": "200"}


def _byte_letters() -> list[str]:
    """The letters that stand for the 256 bytes in byte-level vocabularies."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in plain] + [chr(256 + place) for place in range(256 - len(plain))]
