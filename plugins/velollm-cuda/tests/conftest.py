"""Kernels run under Triton's interpreter where there is no GPU; caches whose every unused place is NaN."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from attrs import evolve, fields, frozen
from torch import Tensor

if not torch.cuda.is_available():
    # Read when the kernels, and Triton's own functions, are defined: before anything imports them.
    os.environ["TRITON_INTERPRET"] = "1"
# These tensors are small: several threads would only wait for one another.
torch.set_num_threads(1)

ELSEWHERE = ("transformers", "cattrs", "aiohttp", "click", "openai")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """On a GPU machine that has the engine's own needs only, nothing but the GPU's tests can be imported."""
    bare = config.getoption("--run-gpu") and not all(map(find_spec, ELSEWHERE))
    return True if bare and collection_path.is_file() and not collection_path.stem.endswith("_gpu") else None


@frozen
class Paged:
    """Random sequences in a paged cache, and the queries of a step.

    ``lengths[b]`` tokens of sequence ``b`` are in the cache, its blocks in row ``rows[b]`` of ``tables``; the last
    ``chunks[b]`` of the tokens ask. Everything that belongs to no sequence is NaN: unused blocks, the rest of a last
    block, and the block that a table's unused entries name.
    """

    query: Tensor
    key_cache: Tensor
    value_cache: Tensor
    tables: Tensor
    rows: list[int]
    lengths: list[int]
    chunks: list[int]

    @classmethod
    def of(
        cls,
        lengths: Sequence[int],
        *,
        heads: int = 4,
        kv_heads: int = 2,
        size: int = 64,
        page: int = 16,
        chunks: Sequence[int] | None = None,
        dtype: torch.dtype = torch.float32,
        cache_dtype: torch.dtype | None = None,
        device: str = "cpu",
        seed: int = 0,
    ) -> Paged:
        """Blocks and rows in random order; caches, tables and queries are views whose strides no shape gives."""
        random = torch.Generator().manual_seed(seed)
        counts = [-(-length // page) for length in lengths]
        order = (torch.randperm(sum(counts) + 2, generator=random) + 1).tolist()
        poisoned = order.pop()
        rows = torch.randperm(len(lengths) + 2, generator=random).tolist()[: len(lengths)]
        tables = torch.full((len(lengths) + 2, max(counts, default=0) + 3), poisoned, dtype=torch.int32)
        cache = torch.full((sum(counts) + 3, 2, page, kv_heads + 1, size), float("nan"))
        for row, length, count in zip(rows, lengths, counts, strict=True):
            for index in range(count):
                block = order.pop()
                tables[row, index] = block
                used = min(page, length - index * page)
                cache[block, :, :used] = torch.randn(2, used, kv_heads + 1, size, generator=random)
        chunks = [1] * len(lengths) if chunks is None else list(chunks)
        query = torch.randn(sum(chunks), heads + 2, size, generator=random).to(dtype).to(device)[:, :heads]
        cache = cache.to(cache_dtype or dtype).to(device)[:, :, :, :kv_heads]
        return cls(query, cache[:, 0], cache[:, 1], tables.to(device)[:, :-1], rows, list(lengths), chunks)

    def decode(self, window: int = 0, **options: Any) -> tuple[Tensor, Tensor]:
        """What the kernel answers, everything it may write poisoned before, and what the reference does."""
        from velollm_cuda.kernels import reference
        from velollm_cuda.kernels.decode import decode_attention
        from velollm_cuda.kernels.split import SplitPlan

        kv_heads, size = self.key_cache.shape[2:]
        heads, device = self.query.shape[1], self.query.device
        plan = SplitPlan.empty(len(self.lengths) + 3, kv_heads, heads // kv_heads, size, device)
        plan = plan.shrunk(len(self.lengths))
        plan.partial.fill_(float("nan"))
        plan.lse.fill_(float("nan"))
        plan.items.fill_(-(2**30))
        lengths, rows = self._ints(self.lengths), self._ints(self.rows)
        plan.fill(lengths, rows, window)
        out = torch.full_like(self.query, float("nan"))
        options = {"scale": size**-0.5, **options}
        caches = (self.key_cache, self.value_cache)
        found = decode_attention(self.query, *caches, self.tables, plan, out=out, **options)
        assert found is out
        assert not plan.arrived.any(), "the counters of a step must be zero for the next"
        table = self.tables[rows.long()]
        wanted = reference.decode_attention(self.query, *caches, table, lengths, window=window, **options)
        return found, wanted

    def prefill(self, **options: Any) -> tuple[Tensor, Tensor]:
        """What the kernel answers, its output poisoned before, and what the reference does."""
        from velollm_cuda.kernels import reference
        from velollm_cuda.kernels.prefill import prefill_attention
        from velollm_cuda.kernels.tiles import TilePlan

        kv_heads, size = self.key_cache.shape[2:]
        heads, device = self.query.shape[1], self.query.device
        plan = TilePlan.of(self.chunks, self.lengths, self.rows, heads // kv_heads, kv_heads, size, device)
        out = torch.full_like(self.query, float("nan"))
        options = {"scale": size**-0.5, **options}
        caches = (self.key_cache, self.value_cache)
        found = prefill_attention(self.query, *caches, self.tables, plan, out=out, **options)
        assert found is out
        table = self.tables[self._ints(self.rows).long()]
        wanted = reference.prefill_attention(self.query, *caches, table, plan.lengths, plan.starts, **options)
        return found, wanted

    def _ints(self, values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int32, device=self.query.device)


def distance(found: Tensor, wanted: Tensor) -> float:
    """The relative L2 distance; NaN where either holds one."""
    return float((found.double() - wanted.double()).norm() / wanted.double().norm().clamp_min(1e-9))


@pytest.fixture(scope="session")
def paged() -> type[Paged]:
    """Makes paged caches."""
    return Paged


@pytest.fixture(scope="session")
def apart() -> Callable[[Tensor, Tensor], float]:
    """Measures how far two tensors are apart."""
    return distance


class Oracle:
    """A model run plainly: fp32, a sequence at a time, all of it in one chunk, through the reference kernels."""

    def __init__(self, config: Any, parameters: Any) -> None:
        from velollm_cuda.kernels import reference
        from velollm_cuda.models.transformer import Transformer

        self.config = config
        self._model = Transformer(config, _plain(parameters), reference)

    def logits(self, token_ids: Sequence[int]) -> Tensor:
        """Logits ``[T, vocabulary]`` behind each of ``token_ids [T]``."""
        from velollm_cuda.batch import Batch, Chunks
        from velollm_cuda.kernels.tiles import TilePlan

        config, count, page = self.config, len(token_ids), 16
        blocks = -(-count // page)
        shape = (blocks + 1, page, config.kv_heads, config.head_size)
        cache = [(torch.zeros(shape), torch.zeros(shape)) for _ in range(config.layers)]
        groups = len(config.kv_windows)
        tables = (torch.arange(1, blocks + 1, dtype=torch.int32)[None],) * groups
        plan = TilePlan.of([count], [count], [0], config.group, config.kv_heads, config.head_size, torch.device("cpu"))
        positions = torch.arange(count)
        chunks = Chunks(torch.zeros(1, dtype=torch.int64), plan)
        ids = torch.tensor(list(token_ids))
        batch = Batch(ids, positions, (positions + page,) * groups, tables, None, chunks)
        with torch.inference_mode():
            return self._model.logits(self._model.forward(batch, cache))

    def shortfall(self, sequence: Any) -> float:
        """How far the score of a sequence's worst choice lies below the best there was: 0 where all are right."""
        first = sequence.num_prompt_tokens
        logits = self.logits(sequence.token_ids[:-1])[first - 1 :].float()
        return max(self._short(sequence, first + index, row) for index, row in enumerate(logits))

    def logprobs(self, sequence: Any) -> Tensor:
        """The log probabilities of a sequence's answer."""
        first = sequence.num_prompt_tokens
        chances = self.logits(sequence.token_ids[:-1])[first - 1 :].log_softmax(-1)
        return chances.gather(-1, torch.tensor(sequence.token_ids[first:])[:, None])[:, 0]

    def _short(self, sequence: Any, at: int, logits: Tensor) -> float:
        """The same for the token at ``at``, everything that goes before it counted anew."""
        from velollm_cuda.kernels import reference

        params, first = sequence.sampling, sequence.num_prompt_tokens
        scores = _penalized(params, sequence.token_ids[:first], sequence.token_ids[first:at], logits)
        if at - first < params.min_tokens:
            scores[list(sequence.stop_ids)] = float("-inf")
        if params.temperature:
            rules = [torch.tensor([each]) for each in (params.temperature, params.top_k, params.top_p, params.min_p)]
            floor = reference.floors(scores[None], *rules)
            noise = reference.gumbel_noise(params.seed, at - 1, len(scores), scores.device)
            scores = (scores / params.temperature + noise).masked_fill(scores < floor - 1e-4, float("-inf"))
        return float(scores.max() - scores[sequence.token_ids[at]])


def _penalized(params: Any, prompt: list[int], answer: list[int], logits: Tensor) -> Tensor:
    """``logits [V]``, token by token as OpenAI and Keskar et al. define their penalties."""
    scores = logits.clone()
    for token in {*prompt, *answer}:
        score, factor = scores[token], params.repetition_penalty
        scores[token] = score / factor if score > 0 else score * factor
        scores[token] -= params.frequency_penalty * answer.count(token) + params.presence_penalty * (token in answer)
    return scores


def _plain(parameters: Any) -> Any:
    """A copy in fp32 on the CPU; a head that is the embedding stays the same tensor."""
    copies: dict[int, Tensor] = {}

    def copy(value: Any) -> Any:
        if isinstance(value, Tensor):
            return copies.setdefault(id(value), value.float().cpu())
        if value is None:
            return None
        return evolve(value, **{each.name: copy(getattr(value, each.name)) for each in fields(type(value))})

    layers = tuple(copy(layer) for layer in parameters.layers)
    plain = {name: copy(getattr(parameters, name)) for name in ("embedding", "norm", "head")}
    return evolve(parameters, layers=layers, **plain)


@pytest.fixture(scope="session")
def oracle() -> type[Oracle]:
    """Runs a model plainly."""
    return Oracle


LLAMA = {
    "architectures": ["LlamaForCausalLM"], "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 60, "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
}  # fmt: skip
GEMMA = LLAMA | {
    "architectures": ["Gemma3ForCausalLM"], "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 10,
    "layer_types": ["sliding_attention", "full_attention"],
}  # fmt: skip


class Tiny:
    """Engines over small random models whose choices are clear: ``llama``, and ``gemma`` with a window of ten."""

    def __init__(self) -> None:
        self._models: dict[tuple[str, ...], tuple[Any, Any]] = {}

    def model(self, family: str, *, dtype: str = "float32", device: str = "cpu", **changes: Any) -> tuple[Any, Any]:
        """Configuration and parameters, always the same ones."""
        from velollm_cuda.models.families import read_config
        from velollm_cuda.weights import random_parameters

        if device == "cuda":
            # The matrix unit takes no fewer.
            changes = {"head_dim": 64, **changes}
        key = (family, dtype, device, str(changes))
        if key not in self._models:
            config = read_config({"llama": LLAMA, "gemma": GEMMA}[family] | changes, family)
            parameters = random_parameters(config, getattr(torch, dtype), torch.device(device), seed=1)
            for tensor in parameters.tensors:
                if tensor.dim() == 2:
                    tensor.mul_(15)
            self._models[key] = (config, parameters)
        return self._models[key]

    def engine(
        self, family: str = "llama", *, tokens: int = 2000, dtype: str = "float32", device: str = "cpu", **options: Any
    ) -> Any:
        """An engine whose cache holds ``tokens`` tokens of long sequences; ``options`` are `EngineOptions`."""
        from velollm_cuda.engine import assemble
        from velollm_cuda.options import EngineOptions

        config, parameters = self.model(family, dtype=dtype, device=device)
        options = {"block_size": 16 if device == "cuda" else 4, "max_num_seqs": 8, **options}
        layout = config.layout(options["block_size"], getattr(torch, dtype).itemsize)
        memory = tokens * layout.bytes_for(layout.typical_tokens) // layout.typical_tokens
        settings = EngineOptions(kv_cache_bytes=memory, dtype=dtype, **options)
        return assemble(config, parameters, settings, torch.device(device), getattr(torch, dtype))

    @staticmethod
    def sequences(count: int, seed: int | None = None, **params: Any) -> list[Any]:
        """Prompts of all lengths, with a beginning in common; ``params`` are those of sampling."""
        from velollm_core.backends.request import SamplingParams
        from velollm_core.engine.sequence import Sequence

        random = Random(count if seed is None else seed)
        stem, found = [7 * index % 60 for index in range(100)], []
        for index in range(count):
            prompt = stem[: random.randint(0, 100)] + random.choices(range(60), k=random.randint(1, 6))
            sampling = SamplingParams(**{"max_tokens": random.randint(1, 40), "seed": index, **params})
            found.append(Sequence(f"s{index}", prompt, sampling))
        return found

    @staticmethod
    def run(engine: Any, mine: list[Any]) -> list[list[int]]:
        """Run ``mine`` to their ends; what each of them says. No block may be lost."""
        for sequence in mine:
            engine.loop.scheduler.add(sequence)
        for _ in engine.loop.run():
            pass
        assert engine.blocks.usage().used == 0
        return [sequence.output_token_ids for sequence in mine]


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    """Makes small engines."""
    return Tiny()
