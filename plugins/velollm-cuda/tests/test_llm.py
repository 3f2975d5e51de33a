"""The engine as a library: what vLLM's users know, on a machine without a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from velollm_cuda import LLM, Generation, SamplingParams
from velollm_cuda.testing import TINY, write_configuration, write_tiny_model

from velollm_core.backends import request
from velollm_core.errors import ModelFileError, ModelRefused, OutOfBlocks, VeloError

PROMPTS = ["Hello", "The quick brown fox", "äöü 🎉", "a"]
SMALL: dict[str, Any] = {"max_num_seqs": 8, "max_model_len": 128, "kv_cache_bytes": 1 << 20}
LONG = SamplingParams(max_tokens=24, ignore_eos=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("llm") / "model")


@pytest.fixture(scope="module")
def llm(folder: Path) -> Iterator[LLM]:
    with LLM(folder, **SMALL) as llm:
        yield llm


@pytest.fixture(autouse=True)
def nothing_is_left(llm: LLM) -> Iterator[None]:
    yield
    assert llm.engine.loop.is_idle
    assert llm.engine.blocks.usage().used == 0


def one(llm: LLM, prompt: Any, params: request.SamplingParams | None = None) -> Generation:
    (generation,) = llm.generate(prompt, params)
    return generation


def test_the_package_itself_brings_no_torch() -> None:
    script = "import sys, velollm_cuda; velollm_cuda.__all__; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    with pytest.raises(ImportError):
        from velollm_cuda import nothing  # type: ignore[attr-defined]  # noqa: F401


def test_greedy_is_what_transformers_says(folder: Path, llm: LLM) -> None:
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for generation in llm.generate(PROMPTS, SamplingParams(temperature=0, max_tokens=32, ignore_eos=True)):
        prompt = torch.tensor([generation.prompt_token_ids])
        wanted = model.generate(prompt, do_sample=False, max_new_tokens=32, eos_token_id=None, pad_token_id=0)
        assert list(generation.token_ids) == wanted[0, prompt.shape[1] :].tolist()
        assert generation.finish_reason == "length"


def test_together_is_as_alone(llm: LLM) -> None:
    together = llm.generate(PROMPTS, LONG)
    assert [each.prompt for each in together] == PROMPTS
    for prompt, generation in zip(PROMPTS, together, strict=True):
        alone = one(llm, prompt, LONG)
        assert alone.token_ids == generation.token_ids
        assert alone.text == generation.text


def test_a_prompt_in_every_shape(llm: LLM) -> None:
    assert llm.tokenizer is not None
    ids = llm.tokenizer.encode("Hello")
    arrays = [list(np.array(ids)), np.array(ids), torch.tensor(ids), {"prompt_token_ids": np.array(ids)}]
    shapes = [ids, tuple(ids), {"prompt": "Hello"}, {"prompt_token_ids": ids}, *arrays]
    answers = llm.generate(shapes, LONG)
    assert {each.token_ids for each in answers} == {one(llm, "Hello", LONG).token_ids}
    assert [each.prompt for each in answers] == [None, None, "Hello", None, None, None, None, None]
    for alone in (ids, np.array(ids), {"prompt": "Hello"}):
        assert one(llm, alone, LONG).token_ids == answers[0].token_ids
    assert len(llm.generate(np.array([ids, ids]), LONG)) == 2
    assert answers[0].outputs[0].index == 0
    assert llm.generate([]) == []


def test_the_models_own_end(folder: Path, tmp_path: Path, llm: LLM) -> None:
    free = one(llm, "Hello", LONG).token_ids
    other = write_tiny_model(tmp_path / "model")
    (other / "generation_config.json").write_text(json.dumps({"eos_token_id": [free[3], free[5]]}))
    with LLM(other, **SMALL) as ending:
        assert ending.eos_ids == {free[3], free[5], 257}
        ended = one(ending, "Hello", SamplingParams(max_tokens=24))
        assert (ended.token_ids, ended.finish_reason) == (free[:4], "stop")
        assert ended.outputs[0].stop_reason is None
        later = one(ending, "Hello", SamplingParams(max_tokens=24, min_tokens=5))
        assert len(later.token_ids) >= 6
        assert one(ending, "Hello", LONG).token_ids == free


def test_stop_tokens(llm: LLM) -> None:
    free = one(llm, "Hello", LONG)
    stopped = one(llm, "Hello", SamplingParams(max_tokens=24, stop_token_ids=[free.token_ids[2]], ignore_eos=True))
    assert stopped.token_ids == free.token_ids[:3]
    assert stopped.outputs[0].stop_reason == free.token_ids[2]
    assert free.text.startswith(stopped.text.rstrip("\ufffd"))


def test_no_end_before_its_time_and_one_when_it_is_there(llm: LLM) -> None:
    """The fifth token would end the answer: it may where four are wanted before it, not where five are."""
    free = one(llm, "Hello", LONG).token_ids
    assert free[4] not in free[:4]
    wish = {"max_tokens": 24, "ignore_eos": True, "stop_token_ids": [free[4]]}
    for least in (0, 1, 4):
        assert one(llm, "Hello", SamplingParams(**wish, min_tokens=least)).token_ids == free[:5]
    later = one(llm, "Hello", SamplingParams(**wish, min_tokens=5)).token_ids
    assert (later[:4], free[4] in later[:5]) == (free[:4], False)


def speaking(llm: LLM) -> Generation:
    """An answer with enough whole characters to stop at."""
    generations = llm.generate([[number] for number in range(60)], SamplingParams(max_tokens=24, ignore_eos=True))
    return max(generations, key=lambda each: sum(letter.isascii() and letter.isprintable() for letter in each.text))


def test_stop_strings_end_the_text_before_them(llm: LLM) -> None:
    free = speaking(llm)
    prompt = list(free.prompt_token_ids)
    places = [at for at in range(2, len(free.text) - 1) if "\ufffd" not in free.text[at : at + 2]]
    stop = free.text[places[0] : places[0] + 2]
    stopped = one(llm, prompt, SamplingParams(max_tokens=24, ignore_eos=True, stop=stop))
    assert stopped.text == free.text[: free.text.index(stop)]
    assert stopped.finish_reason == "stop"
    assert stopped.outputs[0].stop_reason == stop
    assert free.token_ids[: len(stopped.token_ids)] == stopped.token_ids
    several = one(llm, prompt, SamplingParams(max_tokens=24, ignore_eos=True, stop=["no such text", stop]))
    assert several.text == stopped.text
    ignored = SamplingParams(max_tokens=24, ignore_eos=True, stop=stop, min_tokens=24)
    assert one(llm, prompt, ignored).text == free.text


def test_n_answers_share_a_prompt(llm: LLM) -> None:
    hot = SamplingParams(max_tokens=12, temperature=1.5, n=3, seed=7, ignore_eos=True)
    three = one(llm, "Hello, this prompt is longer than a block", hot)
    assert [each.index for each in three.outputs] == [0, 1, 2]
    assert len({each.token_ids for each in three.outputs}) == 3
    again = one(llm, "Hello, this prompt is longer than a block", hot)
    assert {each.token_ids for each in again.outputs} == {each.token_ids for each in three.outputs}
    cold = one(llm, "Hello", SamplingParams(max_tokens=4, n=2, ignore_eos=True))
    assert cold.outputs[0].token_ids == cold.outputs[1].token_ids


def test_seeds(folder: Path, llm: LLM) -> None:
    hot = SamplingParams(max_tokens=12, temperature=2.0, ignore_eos=True)
    same = llm.generate(["Hello"] * 3, hot)
    assert len({each.token_ids for each in same}) == 3, "without a seed, equal prompts draw their own"
    seeded = SamplingParams(max_tokens=12, temperature=2.0, seed=3, ignore_eos=True)
    assert one(llm, "Hello", seeded).token_ids == one(llm, "Hello", seeded).token_ids
    with LLM(folder, seed=5, **SMALL) as first, LLM(folder, seed=5, **SMALL) as second:
        assert first.generate(PROMPTS, hot) == second.generate(PROMPTS, hot)


def test_logprobs_and_penalties_reach_the_engine(llm: LLM) -> None:
    plain = one(llm, "Hello", SamplingParams(max_tokens=16, ignore_eos=True, logprobs=True))
    assert plain.token_ids == one(llm, "Hello", SamplingParams(max_tokens=16, ignore_eos=True)).token_ids
    assert len(plain.outputs[0].logprobs) == 16
    assert all(each <= 0 for each in plain.outputs[0].logprobs)
    ranked = one(llm, "Hello", SamplingParams(max_tokens=16, ignore_eos=True, logprobs=True, top_logprobs=5)).outputs[0]
    assert ranked.logprobs == pytest.approx(plain.outputs[0].logprobs)
    assert [len(each) for each in ranked.top_logprobs] == [5] * 16
    assert [next(iter(each)) for each in ranked.top_logprobs] == list(ranked.token_ids), "greedy takes the likeliest"
    assert [max(each.values()) for each in ranked.top_logprobs] == pytest.approx(ranked.logprobs)
    assert plain.outputs[0].top_logprobs == ()
    fresh = one(llm, "Hello", SamplingParams(max_tokens=16, ignore_eos=True, presence_penalty=2.0))
    assert fresh.token_ids != plain.token_ids or len(set(plain.token_ids)) == 16


def test_parameters_for_each_prompt(llm: LLM) -> None:
    counts = [1, 5, 9]
    params = [SamplingParams(max_tokens=count, ignore_eos=True) for count in counts]
    assert [len(each.token_ids) for each in llm.generate(PROMPTS[:3], params)] == counts
    with pytest.raises(VeloError, match="3 prompts came with 2 sampling parameters"):
        llm.generate(PROMPTS[:3], params[:2])
    plain = one(llm, "Hello", request.SamplingParams(max_tokens=3, ignore_eos=True))
    assert len(plain.token_ids) == 3


def test_the_authors_way_of_sampling(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "model")
    written = {"do_sample": True, "temperature": 0.6, "top_k": 20, "repetition_penalty": 1.1, "eos_token_id": 257}
    (folder / "generation_config.json").write_text(json.dumps(written))
    with LLM(folder, **SMALL) as llm:
        assert llm.default_params == SamplingParams(temperature=0.6, top_k=20, repetition_penalty=1.1)
        assert len(llm.generate(["Hello"])) == 1
        assert len(one(llm, "x" * 120).token_ids) <= 7


def test_a_conversation(llm: LLM) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    (answer,) = llm.chat(messages, LONG)
    assert answer.prompt == "<s><|user|>Hi</s><|assistant|>"
    assert answer.prompt_token_ids == (256, 259, 39, 72, 257, 260)
    assert [each.text for each in llm.chat([messages, messages], LONG)] == [answer.text] * 2


@pytest.mark.parametrize("messages", ["Hi", [["Hi"]], [[]], [{"content": "Hi"}], 7, None, [[{"role": "user"}], "Hi"]])
def test_what_is_no_conversation(llm: LLM, messages: Any) -> None:
    with pytest.raises(VeloError, match="a conversation is a list of messages, each with role and content, found"):
        llm.chat(messages, LONG)


def test_what_is_too_long_stops_the_call_and_nothing_else(llm: LLM) -> None:
    with pytest.raises(OutOfBlocks, match="more than the 128"):
        llm.generate(["Hello", "x" * 200], LONG)
    assert len(one(llm, "Hello", LONG).token_ids) == 24


def test_an_interrupt_leaves_the_engine_fit(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C reaches the caller, who waits; the engine's own thread ends its step, and what was asked."""
    result, interrupted = Future.result, []

    def interrupt(self: Future[Any], timeout: float | None = None) -> Any:
        if not interrupted:
            interrupted.append(self)
            raise KeyboardInterrupt
        return result(self, timeout)

    monkeypatch.setattr(Future, "result", interrupt)
    with pytest.raises(KeyboardInterrupt):
        llm.generate(PROMPTS, LONG)
    assert llm.engine.loop.is_idle
    assert len(one(llm, "Hello", LONG).token_ids) == 24


def test_a_broken_engine_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("a device's fault")

    with LLM(folder, **SMALL) as llm:
        monkeypatch.setattr(type(llm.engine.loop.executor), "collect", broken)
        with pytest.raises(RuntimeError, match="a device's fault"):
            llm.generate("Hello", LONG)
        with pytest.raises(VeloError, match=r"failed \(RuntimeError: a device's fault\); make another"):
            llm.generate("Hello", LONG)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ([1, 320], "token id 320 in a prompt; this model has 320"),
        ([-1], "token id -1"),
        ([[1, "a"]], "a text or a list of token ids"),
        ([None], "a text or a list of token ids"),
        ([{"text": "Hello"}], "a text or a list of token ids"),
        ([[]], "at least one token"),
        (None, "a text or a list of token ids"),
        (5, "a text or a list of token ids"),
        ([1.0], "a text or a list of token ids"),
    ],
)
def test_what_is_no_prompt(llm: LLM, prompt: Any, words: str) -> None:
    with pytest.raises(VeloError, match=words):
        llm.generate(prompt, LONG)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"n": 0}, "n is 0"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"min_tokens": 9, "max_tokens": 8}, "min_tokens is 9"),
        ({"temperature": -1}, "temperature is -1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0}, "top_p is 0"),
        ({"top_k": -2}, "top_k is -2"),
        ({"min_p": 1.5}, "min_p is 1.5"),
        ({"stop": ""}, "stop is"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0"),
        ({"presence_penalty": 3}, "presence_penalty is 3"),
        ({"max_tokens": 2.5}, "max_tokens is 2.5; it must be a whole number"),
        ({"max_tokens": None}, "max_tokens is None"),
        ({"n": True}, "n is True"),
        ({"temperature": "hot"}, "temperature is 'hot'; it must be a number"),
        ({"seed": "x"}, "seed is 'x'; it must be a whole number, or None"),
        ({"top_logprobs": 3}, "top_logprobs is 3; it must be between 0 and 20, and 0 without logprobs"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs is 21"),
        ({"logprobs": 5}, "logprobs is 5; it must be True or False"),
        ({"stop": [1]}, r"stop is \[1\]; it must be a string, or several"),
        ({"stop_token_ids": ["a"]}, r"stop_token_ids is \['a'\]"),
        ({"stop_token_ids": 5}, "stop_token_ids is 5; it must be a list"),
        ({"stop_token_ids": "5"}, "stop_token_ids is '5'; it must be a list"),
        ({"stop_token_ids": range(17)}, "it must be at most 16"),
    ],
)
def test_parameters_without_meaning(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(VeloError, match=words):
        SamplingParams(**wrong)


@pytest.mark.parametrize("params", [{"max_tokens": 3}, ["hot"], [SamplingParams(), None]])
def test_what_are_no_parameters(llm: LLM, params: Any) -> None:
    with pytest.raises(VeloError, match=r"sampling parameters are SamplingParams|1 prompts came with 2"):
        llm.generate(["Hello"], params)


def test_none_asks_for_nothing(llm: LLM) -> None:
    params = SamplingParams(max_tokens=4, ignore_eos=True, stop=None, stop_token_ids=None, seed=None)  # type: ignore[arg-type]
    assert (params.stop, params.stop_token_ids) == ((), ())
    assert len(one(llm, "Hello", params).token_ids) == 4


def test_as_good_as_no_temperature_is_none(llm: LLM) -> None:
    """Divided by it, logits would be infinite, and equally so."""
    cold = SamplingParams(max_tokens=24, ignore_eos=True, temperature=1e-38, top_k=3)
    assert one(llm, "Hello", cold).token_ids == one(llm, "Hello", LONG).token_ids


def test_a_stop_token_that_the_model_does_not_have(llm: LLM) -> None:
    params = SamplingParams(max_tokens=24, ignore_eos=True, stop_token_ids=[10_000], min_tokens=5)
    assert one(llm, "Hello", params).token_ids == one(llm, "Hello", LONG).token_ids


def test_without_a_tokenizer_ids_still_serve(folder: Path, tmp_path: Path, llm: LLM) -> None:
    bare = write_tiny_model(tmp_path / "bare")
    (bare / "tokenizer.json").unlink()
    with LLM(bare, **SMALL) as mute:
        wanted = one(llm, "Hello", LONG)
        answer = one(mute, list(wanted.prompt_token_ids), LONG)
        assert (answer.token_ids, answer.text) == (wanted.token_ids, "")
        for ask in (lambda: mute.generate("Hello"), lambda: mute.generate([1], SamplingParams(stop="a"))):
            with pytest.raises(VeloError, match=r"tokenizer\.json: not found"):
                ask()
    with LLM(bare, tokenizer=folder, **SMALL) as speaking_again:
        assert one(speaking_again, "Hello", LONG).text == wanted.text


def test_a_closed_engine_says_so(folder: Path) -> None:
    llm = LLM(folder, **SMALL)
    llm.close()
    llm.close()
    with pytest.raises(VeloError, match="was closed"):
        llm.generate("Hello")


def test_dummy_weights_need_a_configuration_only(tmp_path: Path) -> None:
    write_configuration(tmp_path, TINY)
    with LLM(tmp_path, load_format="dummy", **SMALL) as llm:
        assert len(one(llm, "Hello", LONG).token_ids) == 24
    with pytest.raises(ModelFileError, match="no safetensors files"):
        LLM(tmp_path, **SMALL)


def test_options(folder: Path, tmp_path: Path) -> None:
    for dtype in (torch.float32, "float", "float32"):
        with LLM(folder, dtype=dtype, **SMALL) as llm:
            assert llm.engine.runner.model.parameters.embedding.dtype == torch.float32
    with pytest.raises(VeloError, match="dtype is 'int4'"):
        LLM(folder, dtype="int4")
    with pytest.raises(TypeError, match="unexpected option 'max_seqs'; it takes"):
        LLM(folder, max_seqs=1)
    with pytest.raises(ModelRefused, match="MambaForCausalLM"):
        LLM(write_tiny_model(tmp_path / "other", architectures=["MambaForCausalLM"]))
