"""Calls that may fail or hang without taking VeloLLM along."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from attrs import define

T = TypeVar("T")


class Hung(Exception):
    """The call did not return within its time; its thread has been left behind."""


@define
class _Outcome(Generic[T]):
    value: T | None = None
    error: BaseException | None = None


def bounded(call: Callable[[], T], seconds: float) -> T:
    """The value of ``call()``, run in a daemon thread that is left behind after ``seconds``.

    Raises:
        Hung: it did not return in time.
        BaseException: whatever ``call`` raised.
    """
    outcome = bounded_each({"": call}, seconds)[""]
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def bounded_each(calls: Mapping[str, Callable[[], T]], seconds: float) -> dict[str, T | BaseException]:
    """Run ``calls`` side by side, each as `bounded` does; an error takes the place of the value."""
    outcomes: dict[str, _Outcome[T]] = {name: _Outcome() for name in calls}

    def run(name: str) -> None:
        try:
            outcomes[name].value = calls[name]()
        except BaseException as error:  # noqa: BLE001 - whatever a stranger's code raises is its outcome
            outcomes[name].error = error

    threads = {name: threading.Thread(target=run, args=(name,), daemon=True) for name in calls}
    for thread in threads.values():
        thread.start()
    results: dict[str, T | BaseException] = {}
    for name, thread in threads.items():
        result = _result(thread, outcomes[name], seconds)
        results[name] = result
    return results


def _result(thread: threading.Thread, outcome: _Outcome[T], seconds: float) -> T | BaseException:
    thread.join(seconds)
    if thread.is_alive():
        return Hung(f"no answer within {seconds:g} s")
    return outcome.error if outcome.error is not None else outcome.value  # type: ignore[return-value]
