"""How the model reads and writes text: implements the server's `TextModel`."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence

from attrs import define

from velollm_core.backends.request import Message
from velollm_core.errors import VeloError
from velollm_llamacpp.engine.chat import render
from velollm_llamacpp.engine.messages import Loaded
from velollm_llamacpp.engine.process import WorkerProcess


@define(eq=False)
class ModelText:
    """Tokenizer and chat template of the model called ``name``; any thread may ask."""

    name: str
    process: WorkerProcess
    facts: Loaded

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return self.facts.end_ids

    @property
    def vocab_size(self) -> int:
        """Token ids are below it."""
        return self.facts.vocabulary

    def encode(self, text: str) -> list[int]:
        """The token ids of ``text`` behind what the model wants in front of one.

        Raises:
            BackendError: the child is gone, or cannot.
        """
        return list(self.process.tokenize(text, special=True))

    def chat(self, messages: Sequence[Message], **switches: object) -> list[int]:
        """The tokens of a conversation up to where the answer begins; ``switches`` are the template's own.

        Raises:
            VeloError: the model has no chat template, or it does not allow these messages.
        """
        if self.facts.chat_template is None:
            raise VeloError(f"{self.name}: the model has no chat template; send a text to /v1/completions")
        text = render(self.facts.chat_template, messages, switches, bos=self.facts.bos, eos=self.facts.eos)
        return list(self.process.tokenize(text, special=False))

    def decode(self, token_ids: Iterable[int]) -> str:
        """The text of ``token_ids``; what is no UTF-8 becomes the replacement character."""
        return b"".join(self.facts.pieces[token] for token in token_ids).decode(errors="replace")

    def detokenizer(self) -> TextReader:
        """Reads one answer as it comes."""
        return TextReader(self.facts.pieces)


class TextReader:
    """Text out of a growing list of tokens; a character's bytes are held back until they are all there."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token_ids: Iterable[int]) -> str:
        """The text that ``token_ids`` add."""
        return self._decoder.decode(b"".join(self._pieces[token] for token in token_ids))

    def finish(self) -> str:
        """What was held back, as the replacement character."""
        return self._decoder.decode(b"", final=True)
