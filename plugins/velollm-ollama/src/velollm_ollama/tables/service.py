"""Variables that change where and how Ollama serves, not how fast."""

from __future__ import annotations

from typing import Final

from velollm_ollama.variable import Variable

_START: Final = (0, 5, 0)

SERVICE: Final = (
    Variable(
        "OLLAMA_MAX_QUEUE",
        "uint",
        "Requests that may wait for a model to load; one more gets 503.",
        defaults=((_START, "512"),),
        unit="requests",
        trap="Requests to a model that is already loaded wait without limit and do not count.",
    ),
    Variable(
        "OLLAMA_LOAD_TIMEOUT",
        "duration",
        "How long a load may stand still before it is given up; 0 or negative is forever.",
        defaults=((_START, "5m0s"),),
        unit="Go duration, or whole seconds",
    ),
    Variable(
        "OLLAMA_HOST",
        "host",
        "Address to listen on, and for clients to call.",
        defaults=((_START, "http://127.0.0.1:11434"),),
        trap="`http://name` without a port means port 80, not 11434.",
    ),
    Variable("OLLAMA_MODELS", "text", "Directory of models and blobs.", trap="`~` is not expanded."),
    Variable("OLLAMA_ORIGINS", "list", "Further origins that browsers may call from."),
    Variable(
        "OLLAMA_REMOTES",
        "list",
        "Hosts that remote models may run on.",
        defaults=(((0, 12, 0), "[ollama.com]"),),
        since=(0, 12, 0),
    ),
    Variable("OLLAMA_DEBUG", "level", "Log level: 1 is debug, 2 is trace.", defaults=((_START, "INFO"),)),
    Variable(
        "OLLAMA_DEBUG_LOG_REQUESTS",
        "bool",
        "Write every request's body to a temporary directory.",
        defaults=(((0, 18, 3), "false"),),
        since=(0, 18, 3),
        trap="Prompts end up on disk.",
    ),
    Variable("OLLAMA_NOHISTORY", "bool", "Keep no history in the interactive client.", defaults=((_START, "false"),)),
    Variable("OLLAMA_NOPRUNE", "bool", "Keep unused blobs at start.", defaults=((_START, "false"),)),
    Variable(
        "OLLAMA_NO_CLOUD",
        "bool",
        "Switch off cloud models and web search.",
        defaults=(((0, 16, 2), "false"),),
        since=(0, 16, 2),
    ),
    Variable(
        "OLLAMA_GO_TEMPLATE",
        "bool",
        "Prefer a Modelfile's TEMPLATE to the GGUF's own.",
        defaults=(((0, 30, 0), "true"),),
        since=(0, 30, 0),
    ),
    Variable(
        "OLLAMA_MAX_TRANSFER_STREAMS",
        "uint",
        "Streams at a time while safetensors models are pulled or pushed.",
        defaults=(((0, 23, 3), "4"),),
        since=(0, 23, 3),
        unit="streams",
    ),
    Variable("OLLAMA_EDITOR", "text", "Editor of the interactive client.", since=(0, 16, 0)),
    Variable(
        "OLLAMA_AUTH",
        "bool",
        "Authentication between client and server.",
        defaults=(((0, 8, 0), "false"),),
        since=(0, 8, 0),
        logged=False,
    ),
)
