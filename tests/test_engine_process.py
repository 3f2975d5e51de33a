"""What only an engine in a process of its own can suffer: a death without a word, a parent that is gone."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Self

import psutil
import pytest

from velollm_core.backends.request import SamplingParams
from velollm_core.engine import process_engine
from velollm_core.engine.process_engine import ProcessEngine, _grow
from velollm_core.engine.process_messages import More
from velollm_core.engine.sequence import Sequence
from velollm_core.engine.streams import EngineStopped, Reader, TokenBatch, unsent
from velollm_core.errors import OutOfBlocks
from velollm_core.testing.cache_executor import expected_tokens
from velollm_core.testing.slow_engine import SlowEngine, collect


def test_a_process_that_dies_says_how() -> None:
    engine = ProcessEngine(SlowEngine.open, SlowEngine(breaks_at=3, dies=True))
    engine.ready()

    async def scenario() -> None:
        with pytest.raises(EngineStopped, match=r"the engine's process died \(signal 9\)"):
            await collect(engine, Sequence("a", [1], SamplingParams(max_tokens=60)))
        with pytest.raises(EngineStopped, match="signal 9"):
            await engine.stats()

    asyncio.run(scenario())
    engine.close()


def test_where_signals_cannot_be_held_back_it_leaves_ctrl_c_to_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_engine, "_no_interrupts", nullcontext)
    engine = ProcessEngine(SlowEngine.open, SlowEngine())
    engine.ready()
    psutil.Process(engine._process.pid).send_signal(signal.SIGINT)
    answered = asyncio.run(collect(engine, Sequence("a", [1], SamplingParams(max_tokens=60))))
    assert answered == (expected_tokens([1], 60), "length")
    engine.close()


def test_it_is_not_ended_by_what_tells_the_whole_group_to_end() -> None:
    """Supervisors send SIGTERM to every process of a service; the parent gives its requests time first."""
    engine = ProcessEngine(SlowEngine.open, SlowEngine())
    engine.ready()
    psutil.Process(engine._process.pid).terminate()
    answered = asyncio.run(collect(engine, Sequence("a", [1], SamplingParams(max_tokens=60))))
    assert answered == (expected_tokens([1], 60), "length")
    engine.close()


FORGETFUL = """
from velollm_core.engine.process_engine import ProcessEngine
from velollm_core.testing.slow_engine import SlowEngine
if __name__ == "__main__":
    engine = ProcessEngine(SlowEngine.open, SlowEngine())
    engine.ready()
    print(engine._process.pid)
"""


def test_whoever_does_not_close_it_can_end_all_the_same(tmp_path: Path) -> None:
    script = tmp_path / "forgetful.py"
    script.write_text(FORGETFUL)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=8)
    assert (done.returncode, done.stderr) == (0, "")
    assert not psutil.pid_exists(int(done.stdout))


def test_an_engine_that_cannot_be_opened_says_why() -> None:
    engine = ProcessEngine(SlowEngine.open, SlowEngine(refusal=OutOfBlocks("it needs 3 GiB")))
    with pytest.raises(OutOfBlocks, match="it needs 3 GiB"):
        engine.ready()
    engine.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_in_taking_in_news_hangs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = ProcessEngine(SlowEngine.open, SlowEngine())
    monkeypatch.setattr(engine, "_deliver", lambda _news: 1 / 0)
    engine.ready()
    with pytest.raises(EngineStopped, match="could not be taken in"):
        asyncio.run(asyncio.wait_for(collect(engine, Sequence("a", [1], SamplingParams(max_tokens=60))), 5))
    engine.close()


def test_a_reader_that_left_before_its_event_loop_was_closed_is_nobodys_orphan() -> None:
    engine, closed = ProcessEngine(SlowEngine.open, SlowEngine()), asyncio.new_event_loop()
    closed.close()
    engine._wake([Reader(Sequence("a", [1]), closed)])
    engine.close()


class Watched(list[Any]):
    """Somebody looks whenever it has grown."""

    def __init__(self, values: list[Any], look: Callable[[], None]) -> None:
        super().__init__(values)
        self._look = look

    def __iadd__(self, values: Any) -> Self:
        self.extend(values)
        self._look()
        return self


def test_whoever_reads_while_a_sequence_grows_finds_each_token_whole() -> None:
    sequence, seen = Sequence("a", [1], SamplingParams(logprobs=True, top_logprobs=1)), list[TokenBatch]()
    for name in ("token_ids", "logprobs", "alternatives"):
        setattr(sequence, name, Watched(getattr(sequence, name), lambda: seen.append(unsent(sequence, 0, None))))
    _grow(sequence, More(0, TokenBatch((5, 6), None, (-0.1, -0.2), (((5, -0.1),), ((6, -0.2),))), 0))
    assert len(seen) == 3
    assert [len(each.alternatives) for each in seen] == [len(each.token_ids) for each in seen]
    assert unsent(sequence, 0, None).token_ids == (5, 6)


ORPHAN = """
import sys, time
from velollm_core.engine.process_engine import ProcessEngine
from velollm_core.testing.slow_engine import SlowEngine
if __name__ == "__main__":
    engine = ProcessEngine(SlowEngine.open, SlowEngine())
    engine.ready()
    print(engine._process.pid, flush=True)
    time.sleep(60)
"""


def test_the_process_ends_with_whoever_began_it(tmp_path: Path) -> None:
    script = tmp_path / "orphan.py"
    script.write_text(ORPHAN)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        child = psutil.Process(int(parent.stdout.readline()))
        child.send_signal(signal.SIGINT)  # Ctrl-C reaches the whole group; it is the parent's to act on
        time.sleep(0.2)
        assert child.is_running()
        parent.kill()
    child.wait(timeout=20)
