"""VeloLLM's own engine: Triton paged attention and continuous batching."""
