"""vLLM: found, reached and measured through its OpenAI interface."""
