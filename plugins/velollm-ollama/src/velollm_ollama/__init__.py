"""Ollama: the settings it really reads, planned, applied and proved."""
