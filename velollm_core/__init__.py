"""VeloLLM's core: the nouns, the five hooks, and the verbs that every backend shares."""

__version__ = "0.1.0"
