"""A fake Ollama for tests: its contract, its traps, and its faults, without a model."""

from velollm_ollama.testing.fake import FakeOllama
from velollm_ollama.testing.store import FakeModel, tiny_model

__all__ = ["FakeModel", "FakeOllama", "tiny_model"]
