"""The parent's end of the two pipes: one request, one reply, or one error."""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

from velollm_core.errors import BackendError, ModelRefused
from velollm_llamacpp.engine.messages import Channel, Failed, Load, Loaded, Reply, Request, Tokenize, Tokens
from velollm_llamacpp.engines import clean_environment

STEP_SECONDS = 600.0
END_SECONDS = 5.0


class WorkerProcess:
    """A child that answers requests in their order. It ends with this process, however this ends.

    Steps are asked by one thread, texts by any. After a crash, or a step that takes longer than ``seconds``, every
    call raises a `BackendError` with the reason.
    """

    def __init__(self, seconds: float = STEP_SECONDS) -> None:
        self.seconds = seconds
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        self._ended = ""
        self._closing = False
        self._told: Callable[[BackendError], object] | None = None
        self._writing, self._texts, self._dying = threading.Lock(), threading.Lock(), threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "velollm_llamacpp.engine.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            # Idle threads of a computation that spin take the core from whoever plans the next one.
            env={"OMP_WAIT_POLICY": "PASSIVE", **clean_environment()},
        )
        self._replies: dict[Channel, SimpleQueue[Reply | None]] = {"step": SimpleQueue(), "text": SimpleQueue()}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def when_it_dies(self, tell: Callable[[BackendError], object]) -> None:
        """Call ``tell`` with the reason, from another thread, should the child end before `close`, or if it has."""
        self._told = tell
        if not self._reader.is_alive():
            self._say()

    def load(self, request: Load) -> Loaded:
        """Load a model.

        Raises:
            ModelRefused: the model or a setting cannot be run.
            BackendError: the child died or hung.
        """
        reply = self.ask(request)
        if not isinstance(reply, Loaded):
            raise BackendError(f"llamacpp: {request.model} was answered with {type(reply).__name__}")
        return reply

    def tokenize(self, text: str, *, special: bool) -> tuple[int, ...]:
        """The token ids of ``text``, from any thread.

        Raises:
            BackendError: the child is gone, or cannot read the text.
        """
        with self._texts:
            self.send(Tokenize(text, special))
            reply = self.receive("text")
        if not isinstance(reply, Tokens):
            raise BackendError(f"llamacpp: a text was answered with {type(reply).__name__}")
        return reply.token_ids

    def ask(self, request: Request) -> Reply:
        """The reply to a load or a step."""
        self.send(request)
        return self.receive()

    def send(self, request: Request) -> None:
        """Hand over a request; its reply is for `receive`.

        Raises:
            BackendError: the child is gone.
        """
        if self._ended:
            raise BackendError(self._ended, kind="crash")
        assert self._process.stdin is not None
        try:
            with self._writing:
                pickle.dump(request, self._process.stdin)
                self._process.stdin.flush()
        except (OSError, ValueError) as error:
            raise self._crashed() from error

    def receive(self, channel: Channel = "step") -> Reply:
        """The reply to the oldest request on ``channel`` that has none yet; waits for it.

        Raises:
            BackendError: the child died, hung, or could not do it.
            ModelRefused: the model or a setting cannot be run.
        """
        try:
            reply = self._replies[channel].get(timeout=self.seconds)
        except Empty:
            self._ended = f"llamacpp: no answer within {self.seconds:g} s; the engine's process was ended"
            raise self._crashed() from None
        if reply is None:
            self._replies[channel].put(None)  # for whoever asks next
            raise self._crashed()
        if isinstance(reply, Failed):
            text = f"llamacpp: {reply.reason}"
            raise ModelRefused(text) if reply.refused else BackendError(text)
        return reply

    def close(self) -> None:
        """End the child; a second call does nothing."""
        self._closing = True
        self._ended = self._ended or "llamacpp: the engine was closed"
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # it may have gone already
            self._process.stdin.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._stderr.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as pipe:
            while True:
                try:
                    channel, reply = pickle.load(pipe)
                except (EOFError, OSError, pickle.UnpicklingError):
                    break
                self._replies[channel].put(reply)
        for queue in self._replies.values():
            queue.put(None)
        self._say()

    def _say(self) -> None:
        if self._told is not None and not self._closing:
            self._told(self._crashed())

    def _crashed(self) -> BackendError:
        with self._dying:
            self._process.kill()
            code = self._process.wait()
            if not self._ended:
                self._ended = f"llamacpp: the engine's process died ({_cause(code)}){self._last_line()}"
        return BackendError(self._ended, kind="crash")

    def _last_line(self) -> str:
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - 4096))
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1].strip()[:200]}" if lines else ""


def _cause(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
