"""The child process: llama.cpp lives here, so that its aborts end nothing else.

``python -m velollm_llamacpp.engine.worker`` reads pickled requests from stdin, from its parent alone, and writes one
reply for each to stdout. When stdin closes it ends at once, in the middle of a computation too.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import traceback
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO

from velollm_llamacpp.engine.context import Context, Refused
from velollm_llamacpp.engine.interface import open_library
from velollm_llamacpp.engine.messages import (
    CacheFull,
    Channel,
    Discard,
    Failed,
    Load,
    Operation,
    Recompute,
    Remove,
    Reply,
    Request,
    Restore,
    Run,
    Sampled,
    Save,
    Share,
    Step,
    Tokenize,
    Tokens,
)
from velollm_llamacpp.engine.sampling import choose, margin
from velollm_llamacpp.library import WrongBuildError

LOG_LINES = 200


def main() -> None:
    """Answer requests until stdin closes."""
    # Both reach the whole group, by Ctrl-C and by supervisors; they are the parent's to act on.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # Native code may print as it likes: only our answers go to stdout.
    answers = Answers(os.fdopen(os.dup(sys.stdout.fileno()), "wb"))
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    requests: SimpleQueue[Request] = SimpleQueue()
    worker = Worker()
    threading.Thread(target=_read, args=(requests, worker, answers), daemon=True).start()
    while True:
        answers.write("step", worker.answer(requests.get()))


def _read(requests: SimpleQueue[Request], worker: Worker, answers: Answers) -> None:
    """Queue what takes long; a tokenizer reads nothing that a step writes, so it need not wait for one."""
    while True:
        try:
            request: Request = pickle.load(sys.stdin.buffer)
        except (EOFError, OSError, pickle.UnpicklingError):
            # The parent has gone: no destructor of the library may keep this process.
            os._exit(0)
        if isinstance(request, Tokenize):
            answers.write("text", worker.answer(request))
        else:
            requests.put(request)


class Answers:
    """The pipe to the parent, written to by two threads."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()

    def write(self, channel: Channel, reply: Reply) -> None:
        """Send ``reply``."""
        with self._lock:
            pickle.dump((channel, reply), self._pipe)
            self._pipe.flush()


class Worker:
    """Does what requests say, on one context."""

    def __init__(self) -> None:
        self._loaded: tuple[Context, Load] | None = None
        self._library_log: list[tuple[int, str]] = []
        self._saved: dict[str, bytes] = {}
        self._recomputed = 0

    def answer(self, request: Request) -> Reply:
        """The reply to ``request``; failures are replies as well."""
        try:
            if isinstance(request, Load):
                return self._load(request)
            if isinstance(request, Tokenize):
                return Tokens(self._context.text.tokenize(request.text, special=request.special))
            del self._library_log[:-LOG_LINES]
            return self._step(request)
        except (WrongBuildError, Refused) as error:
            return Failed(str(error), refused=True)
        except (ValueError, KeyError, MemoryError) as error:
            return Failed(f"{error}" or type(error).__name__)
        except Exception as error:  # noqa: BLE001 - an uncaught one would end this process, and say a signal instead
            traceback.print_exc()
            return Failed(f"a bug in the engine's process; please report it: {type(error).__name__}: {error}")

    @property
    def _context(self) -> Context:
        if self._loaded is None:
            raise ValueError("no model is loaded")
        return self._loaded[0]

    def _load(self, load: Load) -> Reply:
        library = open_library(Path(load.library))
        self._library_log = library.log
        self._loaded = Context(library, load), load
        return self._context.facts()

    def _step(self, step: Step) -> Reply:
        context = self._context
        self._recomputed = 0
        for operation in step.operations:
            self._carry_out(operation)
        tokens: list[int] = []
        margins: list[float] = []
        for runs in batches(step.runs, context.largest_batch):
            if not context.decode(runs):
                return CacheFull()
            draws = [run.draw for run in runs if run.draw is not None]
            for row, draw in zip(context.rows(runs), draws, strict=True):
                tokens.append(choose(row, draw))
                if self._loaded and self._loaded[1].margins:
                    margins.append(margin(row))
        return Sampled(tuple(tokens), tuple(margins), self._recomputed)

    def _carry_out(self, operation: Operation) -> None:
        context = self._context
        match operation:
            case Remove(sequence, start, end):
                context.remove(sequence, start, end)
            case Share(source, target, start, end):
                context.share(source, target, start, end)
            case Save(sequence, key):
                self._saved[key] = context.state(sequence)
            case Restore(sequence, key, token_ids):
                if not context.restore(sequence, self._saved.pop(key)):
                    self._recompute(Recompute(sequence, 0, token_ids))
            case Discard(key):
                self._saved.pop(key, None)
            case Recompute():
                self._recompute(operation)

    def _recompute(self, operation: Recompute) -> None:
        context = self._context
        whole = Run(operation.sequence, operation.start, operation.token_ids, None)
        for runs in batches((whole,), context.largest_batch):
            if not context.decode(runs):
                raise ValueError("llama.cpp found no cells to compute lost tokens in")
        self._recomputed += len(operation.token_ids)


def batches(runs: tuple[Run, ...], largest: int) -> list[list[Run]]:
    """``runs`` in batches of at most ``largest`` tokens, those that do not fit cut in pieces."""
    found: list[list[Run]] = []
    room = 0
    for run in runs:
        start = 0
        while start < len(run.token_ids):
            if not room:
                found.append([])
                room = largest
            piece = run.token_ids[start : start + room]
            end = start + len(piece)
            draw = run.draw if end == len(run.token_ids) else None
            found[-1].append(Run(run.sequence, run.start + start, piece, draw))
            room -= len(piece)
            start = end
    return found


if __name__ == "__main__":
    main()
