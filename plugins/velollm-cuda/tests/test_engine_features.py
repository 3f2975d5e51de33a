"""What a request may ask of the engine, and what the engine may be asked to be."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from velollm_cuda.engine import assemble, build_engine
from velollm_cuda.memory import MemoryBudget, longest_sequence
from velollm_cuda.models.calibration import LARGEST, calibrated
from velollm_cuda.models.transformer import Transformer
from velollm_cuda.options import EngineOptions
from velollm_cuda.testing import TINY, write_tiny_model

from velollm_core.backends.request import SamplingParams
from velollm_core.engine.layout import KVCacheLayout, KVGroup
from velollm_core.engine.sequence import Sequence
from velollm_core.errors import ModelRefused, OutOfBlocks, VeloError
from velollm_core.hardware.memory import Memory

CPU = torch.device("cpu")
WISHES: list[dict[str, Any]] = [
    {},
    {"temperature": 0.8},
    {"temperature": 1.2, "top_k": 5},
    {"temperature": 1.0, "top_p": 0.6, "min_p": 0.05},
    {"repetition_penalty": 1.8},
    {"frequency_penalty": 0.7, "presence_penalty": 0.4},
    {"temperature": 0.9, "top_k": 10, "repetition_penalty": 1.3, "logprobs": True},
    {"logprobs": True, "top_logprobs": 3},
    {"min_tokens": 15},
    {"min_tokens": 9, "temperature": 1.0, "presence_penalty": 1.0, "logprobs": True},
]


def run(engine: Any, sequences: list[Sequence]) -> None:
    for sequence in sequences:
        engine.loop.scheduler.add(sequence)
    for _ in engine.loop.run():
        pass
    assert engine.blocks.usage().used == 0


def wishing(rounds: int = 2) -> list[Sequence]:
    """Sequences that ask for different things at once; several tokens end each."""
    random, found = Random(4), []
    for index in range(rounds * len(WISHES)):
        params = SamplingParams(max_tokens=random.randint(16, 26), seed=index, **WISHES[index % len(WISHES)])
        prompt = random.choices(range(60), k=random.randint(2, 20))
        found.append(Sequence(str(index), prompt, params, frozenset({3, 17, 44, 58})))
    return found


@pytest.mark.parametrize("tokens", [3000, 128], ids=["room", "preempted"])
def test_each_sequence_gets_what_it_asked_for_beside_all_others(tiny: Any, oracle: Any, tokens: int) -> None:
    engine, mine = tiny.engine("llama", tokens=tokens), wishing()
    run(engine, mine)
    assert (engine.loop.scheduler.stats().preemptions > 0) == (tokens == 128)
    judge = oracle(*tiny.model("llama"))
    for sequence in mine:
        assert judge.shortfall(sequence) < 1e-3, sequence.sampling
        answer, least = sequence.output_token_ids, sequence.sampling.min_tokens
        assert len(answer) > least
        assert not set(answer[:-1]) & sequence.stop_ids, "an end is the last token, and none comes too early"
        assert (answer[-1] in sequence.stop_ids) == (sequence.finish_reason == "stop")
    assert {each.finish_reason for each in mine} == {"stop", "length"}


def test_the_judge_notices_a_wish_that_was_not_heard(tiny: Any, oracle: Any) -> None:
    judge = oracle(*tiny.model("llama"))
    for wish in ({"temperature": 1.2, "top_k": 5}, {"repetition_penalty": 1.8}, {"frequency_penalty": 0.7}):
        sequence = Sequence("a", [5, 9, 11], SamplingParams(max_tokens=25, seed=3))
        run(tiny.engine("llama"), [sequence])
        assert judge.shortfall(sequence) < 1e-3
        sequence.sampling = SamplingParams(max_tokens=25, seed=3, **wish)
        assert judge.shortfall(sequence) > 0.05, wish


def test_log_probabilities_come_with_the_tokens_they_belong_to(tiny: Any, oracle: Any) -> None:
    engine, mine = tiny.engine("llama", tokens=128), wishing()
    run(engine, mine)
    judge = oracle(*tiny.model("llama"))
    for sequence in mine:
        count = sequence.sampling.top_logprobs
        if sequence.sampling.logprobs:
            assert torch.allclose(torch.tensor(sequence.logprobs), judge.logprobs(sequence), atol=1e-4)
        else:
            assert sequence.logprobs == sequence.alternatives == []
        if count:
            first = sequence.num_prompt_tokens
            best = judge.logits(sequence.token_ids[:-1])[first - 1 :].log_softmax(-1).topk(count)
            found = [list(zip(*each, strict=True)) for each in sequence.alternatives]
            assert [list(ids) for ids, _ in found] == best.indices.tolist()
            assert torch.allclose(torch.tensor([values for _, values in found]), best.values, atol=1e-4)
    assert any(each.sampling.top_logprobs for each in mine)


def test_who_asks_for_no_alternatives_gets_none_beside_one_who_does(tiny: Any) -> None:
    engine = tiny.engine()
    alone, beside = (
        Sequence(name, [1, 2, 3], SamplingParams(max_tokens=count, logprobs=True, top_logprobs=ranked))
        for name, count, ranked in (("alone", 20, 0), ("beside", 6, 2))
    )
    engine.loop.scheduler.add(alone)
    for step, _ in enumerate(engine.loop.run()):
        if step == 5:
            engine.loop.scheduler.add(beside)
    assert (len(alone.logprobs), alone.alternatives) == (20, [])
    assert [len(each) for each in beside.alternatives] == [2] * 6


@pytest.mark.parametrize("family", ["llama", "gemma"])
def test_an_fp8_cache_holds_twice_as_much_and_says_nearly_the_same(tiny: Any, oracle: Any, family: str) -> None:
    config, parameters = tiny.model(family)
    options = EngineOptions(kv_cache_bytes=1 << 18, max_num_seqs=4, block_size=4)
    wide = assemble(config, parameters, options, CPU, torch.float32)
    narrow = tiny.engine(family, tokens=6000, kv_cache_dtype="fp8")
    assert narrow.runner.cache[0][0].dtype == torch.float8_e4m3fn
    per_block = [engine.blocks.usage().bytes_total / engine.blocks.usage().total for engine in (wide, narrow)]
    assert per_block[0] == 4 * per_block[1]
    assert all(scale != 1 for scales in narrow.runner.model.scales for scale in scales)
    sequence = Sequence("a", [4, 8, 15, 16, 23, 42] * 4, SamplingParams(max_tokens=40))
    run(narrow, [sequence])
    short = oracle(config, parameters).shortfall(sequence)
    spread = float(oracle(config, parameters).logits(sequence.token_ids).std())
    assert 0 < short < spread, "rounded, not wrong"


def test_keys_too_large_for_fp8_are_scaled_to_it(tiny: Any) -> None:
    """Qwen2.5 adds hundreds to its keys: unscaled, e4m3 would cut them off at 448."""
    config, parameters = tiny.model("llama", num_hidden_layers=1)
    parameters = deepcopy(parameters)
    parameters.layers[0].qkv[config.heads * config.head_size :].mul_(1000)
    from velollm_cuda.kernels import reference

    ((key, value),) = calibrated(Transformer(config, parameters, reference), torch.float32)
    assert key * LARGEST > 2000
    assert value * LARGEST > 2000


BUDGET = MemoryBudget("a card", free=10 << 30, weights=9 << 30, compute=1 << 29, output=1 << 28, overhead=1 << 28)
LAYOUT = KVCacheLayout.uniform(16, 8, 128, block_size=16)


def test_a_model_that_does_not_fit_is_refused_with_every_part() -> None:
    short = MemoryBudget("a card", 10 << 30, weights=9 << 30, compute=1 << 29, output=3 << 28, overhead=1 << 28)
    assert BUDGET.cache == 0
    with pytest.raises(OutOfBlocks) as refusal:
        short.require(LAYOUT, 8192, short.cache)
    assert str(refusal.value) == (
        "the model does not fit on a card: weights 9.00 GiB + compute 0.50 GiB + output 0.75 GiB + overhead 0.25 GiB "
        "+ kv 0.50 GiB for 8192 tokens at 65536 bytes, and there is 10.00 GiB free for all; lower max_model_len, "
        "max_num_seqs or max_num_batched_tokens, raise gpu_memory_utilization, or free memory"
    )


def test_room_for_the_asked_length_and_not_a_block_less() -> None:
    needed = LAYOUT.bytes_for(8192) + LAYOUT.bytes_per_block[0]
    BUDGET.require(LAYOUT, 8192, needed)
    with pytest.raises(OutOfBlocks, match=r"there is kv 0\.50 GiB"):
        BUDGET.require(LAYOUT, 8192, needed - 1)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card of ten GiB, eight of them free, of an older kind."""
    answers: dict[str, Any] = {
        "device_count": lambda: 1,
        "mem_get_info": lambda device: (8 << 30, 10 << 30),
        "get_device_name": lambda device: "NVIDIA Small",
        "get_device_capability": lambda device: (8, 0),
        "empty_cache": lambda: None,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, answer)


def test_a_card_is_asked_what_is_free(tmp_path: Path, card: None) -> None:
    """Before anything is loaded: the weights, eight GiB of them here, never reach the card."""
    (tmp_path / "config.json").write_text(json.dumps({**TINY, "vocab_size": 1 << 20, "hidden_size": 4096}))
    with pytest.raises(
        OutOfBlocks, match=r"fit on NVIDIA Small: weights 8\.00 GiB .* 7\.00 GiB free for all"
    ) as refusal:
        build_engine(tmp_path, EngineOptions(device="cuda", dtype="float16", load_format="dummy"))
    assert "\n" not in str(refusal.value)


def test_a_computer_is_asked_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights larger than the memory would end in the kernel's choice of what to kill; also where a cache was asked."""
    small = Memory(total=4 << 30, available=3 << 30, swap_total=None, swap_free=None)
    monkeypatch.setattr("velollm_core.hardware.probe.detect_memory", lambda: small)
    (tmp_path / "config.json").write_text(json.dumps({**TINY, "vocab_size": 1 << 19, "hidden_size": 2048}))
    for cache in (None, 1 << 20):
        with pytest.raises(
            OutOfBlocks, match=r"CPU: weights 4\.00 GiB .* 3\.00 GiB free for all; take a smaller model"
        ):
            build_engine(tmp_path, EngineOptions(load_format="dummy", kv_cache_bytes=cache))


def test_a_cache_larger_than_the_device_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = Memory(total=4 << 30, available=3 << 30, swap_total=None, swap_free=None)
    monkeypatch.setattr("velollm_core.hardware.probe.detect_memory", lambda: small)
    folder = write_tiny_model(tmp_path)
    for cache in ((3 << 30) + 1, 10**14, 10**30):
        with pytest.raises(OutOfBlocks, match=r"kv_cache_bytes asks for .* GiB, and the CPU has 3\.00 GiB") as refusal:
            build_engine(folder, EngineOptions(kv_cache_bytes=cache))
        assert "\n" not in str(refusal.value)


def test_the_cache_of_a_computer_is_what_is_left_at_most(monkeypatch: pytest.MonkeyPatch, tiny: Any) -> None:
    config, _ = tiny.model("llama")
    found = []
    for available in (1 << 28, 1 << 40, 0):
        memory = Memory(total=1 << 40 if available else 0, available=available, swap_total=None, swap_free=None)
        monkeypatch.setattr("velollm_core.hardware.probe.detect_memory", lambda memory=memory: memory)
        found += [
            MemoryBudget.of(config, EngineOptions(), CPU, 1 << 20).cache,
            MemoryBudget.of(config, EngineOptions(), CPU, 1 << 20, loaded=True).cache,
        ]
    whole = 1 << 30
    assert found == [(1 << 28) - (1 << 20), 1 << 28, whole, whole, whole, whole]


def test_a_card_too_old_for_fp8_says_so(tmp_path: Path, card: None) -> None:
    with pytest.raises(ModelRefused, match=r"needs a card of compute capability 8\.9 or newer; this one has 8\.0"):
        build_engine(write_tiny_model(tmp_path), EngineOptions(device="cuda", kv_cache_dtype="fp8"))


def test_memory_that_others_took_meanwhile_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fall(*arguments: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a total capacity")

    monkeypatch.setattr("velollm_cuda.engine.load_parameters", fall)
    with pytest.raises(OutOfBlocks, match="CUDA out of memory; free memory") as refusal:
        build_engine(write_tiny_model(tmp_path), EngineOptions(kv_cache_bytes=1 << 16))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gpu_memory_utilization": 0.0}, "gpu_memory_utilization is 0.0"),
        ({"gpu_memory_utilization": 1.5}, "gpu_memory_utilization is 1.5"),
        ({"max_model_len": 513}, "max_model_len is 513; this model takes 2 to 512 tokens"),
        ({"max_model_len": 1}, "max_model_len is 1; it must be a whole number from 2"),
        ({"max_model_len": "8k"}, "max_model_len is '8k'"),
        ({"load_format": "gguf"}, "load_format is 'gguf'; it must be auto or dummy"),
        ({"dtype": "int8"}, "dtype is 'int8'; it must be auto or float32"),
        ({"seed": None}, "seed is None"),
        ({"kv_cache_bytes": -1}, "kv_cache_bytes is -1"),
        ({"max_num_batched_tokens": 1.5}, "max_num_batched_tokens is 1.5"),
        ({"kv_cache_dtype": "int4"}, "kv_cache_dtype is 'int4'; it must be auto or fp8"),
        ({"max_model_len": 512, "kv_cache_bytes": 1 << 15}, "kv .* for 512 tokens at 256 bytes"),
        ({"device": "cuda"}, "device is 'cuda' and torch .* sees 0 GPUs"),
        ({"device": "cuda:7"}, "device is 'cuda:7' and torch .* sees 0 GPUs"),
        ({"device": "mps"}, "device is 'mps'; it must be cpu, cuda or cuda:N"),
        ({"device": "the fast one"}, "device is 'the fast one'; it must be"),
        ({"max_num_seqs": 0}, "max_num_seqs is 0; it must be a whole number from 1"),
        ({"block_size": 0}, "block_size is 0"),
    ],
    ids=str,
)
def test_options_out_of_range_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(VeloError, match=message) as refusal:
        build_engine(write_tiny_model(tmp_path), EngineOptions(**options))
    assert "\n" not in str(refusal.value)


def test_a_window_bounds_no_length_that_its_blocks_hold() -> None:
    layout = KVCacheLayout((KVGroup(1, 100), KVGroup(5, 500, 64)), 16, 8192)
    assert longest_sequence(layout, (101, 7), 100_000) == 1600
    assert longest_sequence(layout, (101, 6), 100_000) == 80
    assert longest_sequence(layout, (101, 7), 900) == 900
    windows = KVCacheLayout((KVGroup(5, 500, 64),), 16, 8192)
    assert longest_sequence(windows, (50,), 100_000) == 100_000


def test_the_whole_context_by_default_and_less_where_it_does_not_fit(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path)
    assert build_engine(folder, EngineOptions()).limits.max_model_len == 512
    assert build_engine(folder, EngineOptions(kv_cache_bytes=1 << 16)).limits.max_model_len == 240
    assert build_engine(folder, EngineOptions(max_model_len=100, kv_cache_bytes=1 << 16)).limits.max_model_len == 100


def test_random_weights_need_no_files(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path)
    (folder / "model.safetensors").unlink()
    engine = build_engine(folder, EngineOptions(load_format="dummy", seed=3, kv_cache_bytes=1 << 16))
    same = build_engine(folder, EngineOptions(load_format="dummy", seed=3, kv_cache_bytes=1 << 16))
    assert torch.equal(engine.runner.model.parameters.head, same.runner.model.parameters.head)


def test_the_device_decides_the_type(monkeypatch: pytest.MonkeyPatch, tiny: Any) -> None:
    from velollm_cuda.engine import _dtype

    config = SimpleNamespace(dtype="float16")
    assert _dtype(EngineOptions(), config, torch.device("cuda")) == torch.float16  # type: ignore[arg-type]
    assert _dtype(EngineOptions(), config, CPU) == torch.float32  # type: ignore[arg-type]
    assert _dtype(EngineOptions(dtype="bfloat16"), config, CPU) == torch.bfloat16  # type: ignore[arg-type]
    assert tiny.engine("llama", dtype="bfloat16").runner.cache[0][0].dtype == torch.bfloat16
