"""The measured server, in a process of its own: ``python -m velollm_cuda.bench.server FOLDER``."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from velollm_core.errors import VeloError

NAME = "measured"
GRACE = 30.0


def main() -> None:
    """Serve the model in ``FOLDER`` on a free port of the loopback; its URL is the only line on stdout."""
    from velollm_cuda.bench.models import LONGEST, SEQUENCES
    from velollm_cuda.options import SERVED_BATCH_TOKENS, EngineOptions
    from velollm_cuda.served import ServedModel
    from velollm_cuda.server import serve_model

    options = EngineOptions(
        load_format="dummy", max_num_seqs=SEQUENCES, max_model_len=LONGEST, max_num_batched_tokens=SERVED_BATCH_TOKENS
    )
    served = ServedModel.start(sys.argv[1], options, name=NAME, max_waiting=1 << 20)
    serve_model(served, host="127.0.0.1", port=0, api_key=None, ready=lambda url: print(url, flush=True))


@contextmanager
def measured_server(folder: Path) -> Iterator[str]:
    """The URL of a server of the model in ``folder``, which ends with the context.

    Raises:
        VeloError: it does not start; its last line says why.
    """
    command = [sys.executable, "-m", "velollm_cuda.bench.server", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        url = process.stdout.readline().strip() if process.stdout else ""
        try:
            if not url:
                _, errors = process.communicate()
                raise VeloError(f"the server did not start: {(errors.strip().splitlines() or ['no word'])[-1]}")
            yield url
        finally:
            process.terminate()
            try:
                process.communicate(timeout=GRACE)
            except subprocess.TimeoutExpired:
                process.kill()


if __name__ == "__main__":
    main()
