"""The parts of the bench; each takes less than nine minutes, so that a run can be resumed part by part."""

from __future__ import annotations

PARTS = {
    "kernels": "decode attention: sixteen shapes and 0.6B's, beside SDPA",
    "prefill": "attention of chunks, and a step with decodes and a chunk",
    "e2e-1b": "whole request lists through Llama-3.2-1B's shape",
    "e2e-8b": "whole request lists through Llama-3.1-8B's shape",
    "e2e-0.6b": "nano-vllm's own benchmark through Qwen3-0.6B's shape",
    "online": "the server under Poisson arrivals, Llama-3.2-1B's shape",
    "host": "what scheduler and block manager cost a step; needs no GPU",
}
ANYWHERE = {"host"}
