"""nano-vllm's scheduling and block management, written fresh from its description, as the yardstick of engine_host.py.

Two deques; every step pops each running sequence and puts it back; blocks are objects that carry a hash chain and
their tokens; a block is hashed in the step that fills it.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import deque
from itertools import count


def chain_hash(tokens: list[int], prefix: bytes) -> bytes:
    """A digest of one block after its prefix."""
    return hashlib.blake2b(prefix + array("q", tokens).tobytes(), digest_size=8).digest()


class BaselineBlock:
    """One block with its reference count, digest and tokens."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.references = 0
        self.digest = b""
        self.tokens: list[int] = []


class BaselineSequence:
    """One sequence with its block table."""

    _ids = count()

    def __init__(self, tokens: list[int], max_tokens: int, block_size: int) -> None:
        self.index = next(self._ids)
        self.tokens = tokens
        self.prompt_length = len(tokens)
        self.max_tokens = max_tokens
        self.block_size = block_size
        self.table: list[int] = []
        self.finished = False

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def num_blocks(self) -> int:
        """Blocks its tokens take."""
        return (len(self.tokens) + self.block_size - 1) // self.block_size

    def block(self, index: int) -> list[int]:
        """The tokens of one block."""
        return self.tokens[index * self.block_size : (index + 1) * self.block_size]


class BaselineBlocks:
    """Block objects, a deque of free ids, a dictionary from digest to id."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self.blocks = [BaselineBlock(index) for index in range(num_blocks)]
        self.by_digest: dict[bytes, int] = {}
        self.free: deque[int] = deque(range(num_blocks))

    def lookup(self, sequence: BaselineSequence) -> int:
        """How many leading blocks are cached, by digest, and compared token by token."""
        digest = b""
        for index in range(sequence.num_blocks):
            tokens = sequence.block(index)
            if len(tokens) < self.block_size:
                return index
            digest = chain_hash(tokens, digest)
            found = self.by_digest.get(digest, -1)
            if found == -1 or self.blocks[found].tokens != tokens:
                return index
        return sequence.num_blocks

    def _take(self) -> BaselineBlock:
        block = self.blocks[self.free.popleft()]
        block.references, block.digest, block.tokens = 1, b"", []
        return block

    def _seal(self, block: BaselineBlock, tokens: list[int], prefix: bytes) -> bytes:
        block.digest, block.tokens = chain_hash(tokens, prefix), tokens
        self.by_digest[block.digest] = block.index
        return block.digest

    def allocate(self, sequence: BaselineSequence) -> None:
        """All blocks of a prompt."""
        digest = b""
        for index in range(sequence.num_blocks):
            block = self._take()
            sequence.table.append(block.index)
            if len(tokens := sequence.block(index)) == self.block_size:
                digest = self._seal(block, tokens, digest)

    def can_append(self, sequence: BaselineSequence) -> bool:
        """Whether the next token finds a place."""
        return len(self.free) >= (len(sequence) % self.block_size == 1)

    def append(self, sequence: BaselineSequence) -> None:
        """A block more where one begins; a digest where one is full."""
        table = sequence.table
        last = self.blocks[table[-1]]
        if len(sequence) % self.block_size == 1:
            table.append(self._take().index)
        elif len(sequence) % self.block_size == 0:
            prefix = self.blocks[table[-2]].digest if len(table) > 1 else b""
            self._seal(last, sequence.block(sequence.num_blocks - 1), prefix)


class BaselineScheduler:
    """Decodes everything that runs, one sequence at a time through a deque."""

    def __init__(self, blocks: BaselineBlocks, max_num_seqs: int, end: int) -> None:
        self.blocks = blocks
        self.max_num_seqs = max_num_seqs
        self.end = end
        self.running: deque[BaselineSequence] = deque()

    def schedule(self) -> list[BaselineSequence]:
        """The decode batch."""
        scheduled: list[BaselineSequence] = []
        while self.running and len(scheduled) < self.max_num_seqs:
            sequence = self.running.popleft()
            if not self.blocks.can_append(sequence):
                raise RuntimeError("the benchmark gives enough blocks")
            self.blocks.append(sequence)
            scheduled.append(sequence)
        self.running.extendleft(reversed(scheduled))
        return scheduled

    def prepare(self, sequences: list[BaselineSequence]) -> tuple[list[int], ...]:
        """The lists that the model runner builds of a batch, before any tensor."""
        tokens, positions, lengths, slots = [], [], [], []
        for sequence in sequences:
            length = len(sequence)
            tokens.append(sequence.tokens[-1])
            positions.append(length - 1)
            lengths.append(length)
            slots.append(sequence.table[-1] * self.blocks.block_size + (length - 1) % self.blocks.block_size)
        widest = max(len(sequence.table) for sequence in sequences)
        tables = [sequence.table + [-1] * (widest - len(sequence.table)) for sequence in sequences]
        return tokens, positions, lengths, slots, *tables

    def postprocess(self, sequences: list[BaselineSequence], tokens: list[int]) -> None:
        """One token each, and who is done."""
        for sequence, token in zip(sequences, tokens, strict=True):
            sequence.tokens.append(token)
            if token == self.end or len(sequence) - sequence.prompt_length == sequence.max_tokens:
                sequence.finished = True
                self.running.remove(sequence)
