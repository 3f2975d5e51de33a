"""Set, read back, compare, roll back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from attrs import define, field

from velollm_core.applying import apply_plan, compare
from velollm_core.backends.setting import Plan, Setting, Value
from velollm_core.backends.status import Status
from velollm_core.errors import BackendError, VeloError
from velollm_core.history import remember


@define
class Plain:
    """A backend that cannot be set."""

    name: str = "plain"
    calls: list[str] = field(factory=list)

    async def status(self) -> Status:
        return Status(reachable=True)

    def stream(self, request):
        raise NotImplementedError

    async def close(self) -> None:
        self.calls.append("close")


@define
class Settable(Plain):
    """One that takes everything and reports ``found``."""

    found: Mapping[str, Value] = field(factory=dict)
    failure: Exception | None = None

    async def apply(self, model, settings: Sequence[Setting]) -> None:
        self.calls.append("apply")
        if self.failure:
            raise self.failure

    async def read_back(self) -> Mapping[str, Value]:
        self.calls.append("read_back")
        return self.found

    async def roll_back(self) -> None:
        self.calls.append("roll_back")


def plan(**values: Value) -> Plan:
    settings = tuple(Setting(name, value, "flag", "a test", "rule") for name, value in values.items())
    return Plan("plain", "model", settings)


@pytest.mark.parametrize(
    ("wanted", "found", "verdict"),
    [
        (8192, 8192, "equal"),
        (8192, "8192", "equal"),
        (0.5, "0.50", "equal"),
        (True, "on", "equal"),
        ("on", True, "equal"),
        ("Q8_0", "q8_0", "equal"),
        (False, 0, "equal"),
        (8192, 4096, "different"),
        ("on", "off", "different"),
        (True, None, "different"),
        ("f16", 2, "different"),
    ],
)
def test_values_that_say_the_same_are_equal(wanted: Value, found: Value, verdict: str) -> None:
    assert compare(plan(a=wanted).settings, {"a": found})[0].verdict == verdict


def test_what_reads_back_is_kept(dense) -> None:
    backend = Settable(found={"context": 512})
    applied = apply_plan(backend, dense(), plan(context=512, threads=2))
    assert applied.ok
    assert not applied.rolled_back
    assert [setting.verdict for setting in applied.settings] == ["equal", "not reported"]
    assert backend.calls == ["apply", "read_back", "close"]


def test_what_reads_back_differently_is_rolled_back(dense) -> None:
    backend = Settable(found={"context": 256})
    applied = apply_plan(backend, dense(), plan(context=512))
    assert (applied.ok, applied.rolled_back) == (False, True)
    assert backend.calls == ["apply", "read_back", "roll_back", "close"]


def test_a_backend_that_fails_is_closed(dense) -> None:
    backend = Settable(failure=BackendError("plain: does not load"))
    with pytest.raises(BackendError, match="does not load"):
        apply_plan(backend, dense(), plan(context=512))
    assert backend.calls == ["apply", "close"]


def test_a_backend_that_cannot_be_set_says_so(dense) -> None:
    with pytest.raises(VeloError, match="write them with -o FILE"):
        apply_plan(Plain(), dense(), plan())


def test_what_was_applied_is_remembered(dense, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velollm_core.history.state_dir", lambda: tmp_path)
    applied = apply_plan(Settable(found={"context": 512}), dense(), plan(context=512))
    path = remember(applied)
    remember(applied)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 2
    assert lines[0]["settings"][0] == {"name": "context", "wanted": 512, "found": 512, "verdict": "equal"}
    assert lines[0]["ok"] is True
