"""The architectures that llama.cpp knows, as data: facts read off b11434 and checked against its allocator."""

from __future__ import annotations

from velollm_core.models.rules import Architecture, Indexer, Recurrence, Window

_PLAIN = (
    "llama deci falcon grok gpt2 gptneox mpt baichuan starcoder refact bloom stablelm qwen qwen2 qwen2moe qwen2vl "
    "qwen3 qwen3moe qwen3vl qwen3vlmoe phi2 phi3 phimoe plamo codeshell orion internlm2 minicpm minicpm3 gemma "
    "starcoder2 xverse command-r dbrx olmo olmoe openelm arctic deepseek deepseek2-ocr chatglm glm4 glm4moe bitnet "
    "jais jais2 nemotron exaone granite granitemoe chameleon plm bailingmoe bailingmoe2 dots1 arcee "
    "ernie4_5 ernie4_5-moe hunyuan-moe hunyuan-dense hunyuan_vl hy_v3 smollm3 seed_oss grovemoe apertus hrm_text "
    "minimax-m2 cogvlm pangu-embedded mistral3 paddleocr maincoder talkie qwen3tts pockettts"
)
_WITHOUT_CACHE = (
    "bert modern-bert nomic-bert nomic-bert-moe neo-bert jina-bert-v2 jina-bert-v3 eurobert wavtokenizer-dec "
    "gemma-embedding dream llada llada-moe rnd1 clef"
)

_EVERY_FOURTH = Window(period=4, optional=True)
_BY_FLAGS = Window(period=None)

_WINDOWED: dict[str, Architecture] = {
    "afmoe": Architecture(_EVERY_FOURTH),
    "cohere2": Architecture(Window(period=4)),
    "cohere2moe": Architecture(Window(period=4, full_first=True)),
    "exaone4": Architecture(Window(period=4, default=4096, block_count=64)),
    "exaone-moe": Architecture(Window(period=4)),
    "gemma2": Architecture(Window(period=2, default=4096)),
    "gemma3": Architecture(Window(period=6, optional=True)),
    "gemma3n": Architecture(Window(period=5), cached_blocks=20, embedding_twice=True),
    "gemma4": Architecture(_BY_FLAGS, shared_key="{a}.attention.shared_kv_layers", embedding_twice=True),
    "gpt-oss": Architecture(Window(period=2)),
    "granite_swa": Architecture(_BY_FLAGS),
    "laguna": Architecture(Window(period=4, full_first=True, optional=True)),
    "llama4": Architecture(Window(period=4, forced=8192, kind="chunk")),
    "maple": Architecture(_BY_FLAGS),
    "mellum": Architecture(_EVERY_FOURTH),
    "mimo2": Architecture(_BY_FLAGS),
    "muse-glimmer": Architecture(Window(period=4)),
    "olmo2": Architecture(_EVERY_FOURTH),
    "plamo3": Architecture(Window(period=8, optional=True)),
    "smallthinker": Architecture(Window(period=4, full_first=True, forced=4096, optional=True)),
    "spark2_5": Architecture(_BY_FLAGS),
    "step35": Architecture(_BY_FLAGS),
}

_LATENT: dict[str, Architecture] = {
    "deepseek2": Architecture(latent=True),
    "mistral4": Architecture(latent=True),
    "deepseek32": Architecture(latent=True, indexer=Indexer("every_layer", with_values=True)),
    "glm-dsa": Architecture(latent=True, indexer=Indexer("listed", fallback="glm", with_values=True)),
    "hy_v4": Architecture(latent=True, indexer=Indexer("listed", optional=True), nextn_caches=True),
    "dots3note": Architecture(_BY_FLAGS, latent=True, indexer=Indexer("listed")),
    "minimax-m3": Architecture(indexer=Indexer("behind_dense", with_values=True), nextn_caches=True),
    "deepseek4": Architecture(Window(period=0), cache="compressed", indexer=Indexer("listed")),
}

_INTERVAL = Recurrence("interval", "ssm")
_NO_HEADS = Recurrence("no_kv_heads", "ssm", nextn_caches=True)
_KDA = Recurrence("no_kv_heads", "kda", nextn_caches=True)
_SHORT = Recurrence("no_kv_heads", "shortconv", nextn_caches=True)
_WKV = Recurrence("everywhere", "wkv")
_NEMOTRON = Recurrence("no_kv_heads_nor_ffn", "ssm", nextn_caches=True)

_RECURRENT: dict[str, Architecture] = {
    "mamba": Architecture(recurrence=Recurrence("everywhere", "ssm_ungrouped")),
    "mamba2": Architecture(recurrence=Recurrence("everywhere", "ssm")),
    "rwkv6": Architecture(recurrence=_WKV),
    "rwkv6qwen2": Architecture(recurrence=_WKV),
    "rwkv7": Architecture(recurrence=_WKV),
    "arwkv7": Architecture(recurrence=_WKV),
    "jamba": Architecture(recurrence=Recurrence("no_kv_heads", "ssm_ungrouped", nextn_caches=True)),
    "plamo2": Architecture(recurrence=_NO_HEADS, lengths_without_heads=True),
    "granitehybrid": Architecture(recurrence=_NO_HEADS),
    "falcon-h1": Architecture(recurrence=Recurrence("everywhere", "ssm", beside_attention=True, nextn_caches=True)),
    "lfm2": Architecture(Window(period=0, optional=True), recurrence=_SHORT),
    "lfm2moe": Architecture(recurrence=_SHORT),
    "nemotron_h": Architecture(recurrence=_NEMOTRON),
    "nemotron_h_moe": Architecture(recurrence=_NEMOTRON),
    "qwen3next": Architecture(recurrence=_INTERVAL),
    "qwen35": Architecture(recurrence=_INTERVAL),
    "qwen35moe": Architecture(recurrence=_INTERVAL),
    "qwen4exp": Architecture(
        recurrence=_INTERVAL,
        indexer=Indexer("every_layer", pooled=2, pooled_key="{a}.attention.compress_ratios", optional=True),
    ),
    "minimax-01": Architecture(recurrence=Recurrence("interval", "linear", interval=8), reserves_one_slot=True),
    "kimi-linear": Architecture(recurrence=_KDA, latent=True, reserves_one_slot=True),
    "kimi-k3": Architecture(recurrence=_KDA, latent=True, value_is_latent=True),
    "bailingmoe3": Architecture(recurrence=_KDA, latent=True),
    "glm5-next": Architecture(
        recurrence=Recurrence("no_kv_heads", "kda"),
        indexer=Indexer("listed", fallback="all", pooled=3, pooled_key="{a}.attention.indexer.kpool"),
        latent=True,
        value_is_latent=True,
    ),
}

_SPECIAL: dict[str, Architecture] = {
    "grok": Architecture(flash_attention=False),
    **dict.fromkeys(("t5", "t5encoder", "llama-embed"), Architecture(odd_graph=True)),
    "graniteswitch": Architecture(router_layer=True),
    "nanbeige": Architecture(loops_key="{a}.num_loops"),
    "gemma4-assistant": Architecture(_BY_FLAGS, cache="draft"),
    "eagle3": Architecture(cache="draft"),
    "dflash": Architecture(cache="draft"),
}

ARCHITECTURES: dict[str, Architecture] = {
    **dict.fromkeys(_PLAIN.split(), Architecture()),
    **dict.fromkeys(_WITHOUT_CACHE.split(), Architecture(cache="none")),
    **_WINDOWED,
    **_LATENT,
    **_RECURRENT,
    **_SPECIAL,
}
"""By the name in ``general.architecture``."""
