"""Which backend and model are meant where nobody says so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from attrs import define, field

from velollm_core import choose
from velollm_core.ask import ask
from velollm_core.backends.status import Status
from velollm_core.choose import BackendChoice, choose_backend, choose_model, model_candidates, resolve
from velollm_core.errors import BackendError, BackendUnreachable, ModelFileError, VeloError
from velollm_core.models.discover import FoundModel
from velollm_core.models.spec import ModelSpec
from velollm_core.testing.test_model import write_test_model

ABSENT = Status(reachable=False, reason="nothing answers")
READY = Status(reachable=True)
RUNNING = Status(reachable=True, running=True, models=("big:latest", "small:latest"))


@define
class Fake:
    """A backend that knows the shapes it is given."""

    name: str
    shapes: dict[str, ModelSpec] = field(factory=dict)
    closed: int = 0

    async def status(self) -> Status:
        return READY

    def stream(self, request):
        raise NotImplementedError

    async def close(self) -> None:
        self.closed += 1

    async def resolve(self, model: str) -> ModelSpec:
        if model not in self.shapes:
            raise BackendError(f"{self.name}: no model {model}")
        return self.shapes[model]


def chosen(statuses: dict[str, Status], **options: str | None) -> str | None:
    choice = choose_backend([Fake(name) for name in statuses], statuses, **options)
    return choice.backend.name if choice else None


def test_what_was_asked_for_is_taken_or_refused_with_its_reason() -> None:
    assert chosen({"a": RUNNING, "b": READY}, asked="b", default="a") == "b"
    with pytest.raises(BackendUnreachable, match="b: nothing answers"):
        chosen({"a": RUNNING, "b": ABSENT}, asked="b")
    with pytest.raises(VeloError, match="no plugin offers a backend called 'c'; here are: a"):
        chosen({"a": RUNNING}, asked="c")
    with pytest.raises(VeloError, match="install one"):
        chosen({}, asked="c")


def test_the_default_then_one_that_runs_then_one_that_can_be_started() -> None:
    assert chosen({"a": RUNNING, "b": READY}, default="b") == "b"
    assert chosen({"a": RUNNING, "b": ABSENT}, default="b") == "a"
    assert chosen({"a": READY, "b": RUNNING}) == "b"
    assert chosen({"a": ABSENT, "b": READY}) == "b"
    assert chosen({"a": ABSENT, "b": ABSENT}) is None
    assert chosen({"a": RUNNING}, default="uninstalled") == "a"


def test_several_are_named_in_the_reason() -> None:
    statuses = {"a": RUNNING, "b": RUNNING}
    choice = choose_backend([Fake("a"), Fake("b")], statuses)
    assert choice is not None
    assert "(also: b)" in choice.reason


def test_a_backend_without_a_status_cannot_be_used() -> None:
    assert choose_backend([Fake("a")], {}) is None


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch):
    """Put these files where models are looked for."""

    def put(*found: FoundModel) -> None:
        monkeypatch.setattr("velollm_core.models.discover.discover_ggufs", lambda: list(found))

    return put


def test_models_of_a_running_backend_come_before_files_and_small_before_large(disk) -> None:
    disk(
        FoundModel("large", Path("/m/large.gguf"), 200, "lmstudio"),
        FoundModel("tiny", Path("/m/tiny.gguf"), 10, "ollama"),
    )
    names = [candidate.name for candidate in model_candidates(RUNNING)]
    assert names == ["big:latest", "small:latest", "/m/tiny.gguf", "/m/large.gguf"]
    assert [candidate.name for candidate in model_candidates(READY)] == ["/m/tiny.gguf", "/m/large.gguf"]
    assert model_candidates(None)[0].label == "tiny"


def test_a_listed_name_is_resolved_by_its_backend(dense, disk) -> None:
    disk()
    backend = Fake("a", {"big:latest": dense()})
    choice = BackendChoice(backend, RUNNING, "asked for")
    model = choose_model(choice)
    assert (model.name, model.origin, model.spec) == ("big:latest", "backend", dense())
    assert model.reason == "one of 2 that the backend lists"
    assert backend.closed == 1
    with pytest.raises(BackendError, match="no model other"):
        choose_model(choice, asked="other")


def test_a_file_is_read_even_where_a_backend_resolves(tmp_path: Path) -> None:
    path = write_test_model(tmp_path / "model.gguf")
    choice = BackendChoice(Fake("a"), RUNNING, "asked for")
    assert choose_model(choice, asked=str(path)).spec.architecture == "llama"
    assert resolve(None, str(path)).source == str(path)
    with pytest.raises(ModelFileError, match=r"absent\.gguf"):
        resolve(choice, str(tmp_path / "absent.gguf"))


def test_the_pick_of_the_user_is_taken(tmp_path: Path, disk) -> None:
    paths = [write_test_model(tmp_path / name) for name in ("a.gguf", "b.gguf")]
    disk(*(FoundModel(path.name, path, 10, "lmstudio") for path in paths))
    assert choose_model(None).reason == "one of 2 GGUF files found on disk"

    def last(candidates: Sequence[choose.ModelCandidate]) -> choose.ModelCandidate:
        return candidates[-1]

    assert choose_model(None, pick=last).name == str(paths[1])


def test_without_any_model_the_test_model_is_made_once(tmp_path: Path, disk, monkeypatch: pytest.MonkeyPatch) -> None:
    disk()
    monkeypatch.setattr("velollm_core.config.cache_dir", lambda: tmp_path / "cache")
    model = choose_model(None)
    assert model.origin == "test"
    assert "made from a seed" in model.reason
    written = Path(model.name).stat().st_mtime_ns
    assert choose_model(None).name == model.name
    assert Path(model.name).stat().st_mtime_ns == written


def test_a_backend_that_hangs_costs_its_time_and_no_more() -> None:
    async def never() -> None:
        time.sleep(60)

    with pytest.raises(BackendUnreachable, match=r"a: the shape of x: no answer within 0\.05 s"):
        ask(Fake("a"), never, "the shape of x", 0.05)


def test_an_answer_comes_with_its_exception_and_closes_the_backend() -> None:
    backend = Fake("a")

    async def fail() -> None:
        await asyncio.sleep(0)
        raise BackendError("no")

    with pytest.raises(BackendError, match="no"):
        ask(backend, fail, "anything")
    assert backend.closed == 1
