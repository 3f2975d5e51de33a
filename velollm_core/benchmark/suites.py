"""The workloads that VeloLLM brings along."""

from __future__ import annotations

from velollm_core.benchmark.workload import Task, Workload

STANDARD = (
    Task(
        "short_completion",
        "Answer in one short paragraph: why does the sky look blue by day and red at dusk?",
        max_tokens=50,
        repeats=5,
    ),
    Task(
        "medium_completion",
        "Explain to a new colleague how a hash table works: how a key finds its slot, what happens when two keys meet "
        "in the same one, when the table grows, and what each operation costs on average and at worst.",
        max_tokens=150,
        repeats=3,
    ),
    Task(
        "code_generation",
        "Write a Python function that reads a CSV file with the columns date, product and amount, adds up the amount "
        "of each product for each month, and returns the three best-selling products of every month. Handle missing "
        "values, write type hints and a docstring, and show one example of its use.",
        max_tokens=200,
        repeats=3,
    ),
)


def standard(model: str, *, concurrency: int = 1, seed: int = 0, warm_cache: bool = False) -> Workload:
    """The standard suite: short completion (50 tokens × 5), medium completion (150 × 3), code generation (200 × 3)."""
    return Workload("standard", model, STANDARD, concurrency=concurrency, seed=seed, warm_cache=warm_cache)


def conversation(model: str, prompt: str, max_tokens: int, *, concurrency: int = 1, seed: int = 0) -> Workload:
    """One kind of request, asked once a user: what the autopilot measures between two restarts."""
    return Workload("conversation", model, (Task("conversation", prompt, max_tokens, 1),), concurrency, seed=seed)
