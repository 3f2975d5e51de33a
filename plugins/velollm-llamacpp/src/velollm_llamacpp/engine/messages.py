"""What parent and child tell each other: frozen values, pickled one after the other through two pipes."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

SEQUENCE_IDS = 256
"""``LLAMA_MAX_SEQ``: llama.cpp's own bound on sequence ids, which it does not export."""

END = -1
"""In a range of positions: up to the last one."""


@frozen
class Remove:
    """Forget what sequence id ``sequence`` holds at positions from ``start`` to before ``end``."""

    sequence: int
    start: int = 0
    end: int = END


@frozen
class Share:
    """Let ``target`` hold the same cells as ``source`` at these positions; nothing is copied in unified mode."""

    source: int
    target: int
    start: int
    end: int


@frozen
class Save:
    """Copy what ``sequence`` holds into the child's own memory under ``key``; the cells stay until a `Remove`."""

    sequence: int
    key: str


@frozen
class Restore:
    """Write what was saved under ``key`` into new cells of ``sequence``, which must hold none; then forget the copy.

    ``token_ids`` are the tokens it holds: they are computed again if llama.cpp finds no place for the copy.
    """

    sequence: int
    key: str
    token_ids: tuple[int, ...]


@frozen
class Discard:
    """Forget the copy under ``key``."""

    key: str


@frozen
class Recompute:
    """Compute ``token_ids`` of ``sequence`` from position ``start`` on: cells that were promised and not kept."""

    sequence: int
    start: int
    token_ids: tuple[int, ...]


Operation = Remove | Share | Save | Restore | Discard | Recompute


@frozen
class Draw:
    """How a row's token is chosen; ``position`` and ``seed`` make the draw the same whenever it is made.

    None of the tokens ``without`` is.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    position: int = 0
    without: tuple[int, ...] = ()


@frozen
class Run:
    """Consecutive tokens of one sequence id; with ``draw`` the last of them gives a token."""

    sequence: int
    start: int
    token_ids: tuple[int, ...]
    draw: Draw | None


@frozen
class Step:
    """Operations in their order, then the tokens of all ``runs`` in one batch (or more, if they exceed the largest)."""

    operations: tuple[Operation, ...] = ()
    runs: tuple[Run, ...] = ()


@frozen
class Sampled:
    """A token for each run that draws; ``margins`` are the leads of the best logit over the second, where asked for.

    ``recomputed`` counts the tokens that operations computed.
    """

    token_ids: tuple[int, ...]
    margins: tuple[float, ...] = ()
    recomputed: int = 0


@frozen
class CacheFull:
    """llama.cpp found no cells for the batch; the operations are done, nothing of the runs is."""


@frozen
class Failed:
    """The child could not do what was asked; it goes on. ``refused`` when the model or a setting is at fault."""

    reason: str
    refused: bool = False


@frozen
class Load:
    """Load ``model`` with the library at ``library``; a context of ``cells`` cells for ``num_sequences`` sequence ids.

    ``threads`` 0 leaves the number to llama.cpp.
    """

    library: str
    model: str
    cells: int
    num_sequences: int
    batch: int
    ubatch: int
    threads: int
    gpu_layers: int
    flash_attn: str
    type_k: str
    type_v: str
    margins: bool


@frozen
class Loaded:
    """What the child found. ``cache_bytes`` is the size of the KV buffer, None where the platform does not tell.

    ``pieces`` are the bytes of each token, none for control tokens; ``end_ids`` end an answer.
    """

    cells: int
    batch: int
    vocabulary: int
    layers: int
    training_context: int
    cache_bytes: int | None
    end_ids: frozenset[int]
    pieces: tuple[bytes, ...]
    bos: str
    eos: str
    chat_template: str | None


@frozen
class Tokenize:
    """Asks for the token ids of ``text``, control tokens read as such; ``special`` adds what the model wants in front.

    It is answered at once, also while a step is computed.
    """

    text: str
    special: bool = True


@frozen
class Tokens:
    """The token ids of a text."""

    token_ids: tuple[int, ...]


Request = Load | Step | Tokenize
Reply = Loaded | Sampled | CacheFull | Tokens | Failed
Channel = Literal["step", "text"]
