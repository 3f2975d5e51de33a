"""The OpenAI-compatible server over the engine's loop: one for every engine."""
