"""The model's tokenizer, in the child."""

from __future__ import annotations

import ctypes

from velollm_llamacpp.library import Library


class NativeVocabulary:
    """Text to tokens and back, by llama.cpp."""

    def __init__(self, library: Library, handle: int) -> None:
        self.handle = handle
        self.num_tokens = library.call("llama_vocab_n_tokens", handle)
        self._tokenize = library.function("llama_tokenize")
        self._piece = library.function("llama_token_to_piece")
        self._text = library.function("llama_vocab_get_text")

    def tokenize(self, text: str, *, special: bool) -> tuple[int, ...]:
        """The token ids of ``text``.

        Raises:
            ValueError: llama.cpp cannot read it.
        """
        encoded = text.encode(errors="replace")
        count = len(encoded) + 8
        while True:
            buffer = (ctypes.c_int32 * count)()
            found: int = self._tokenize(self.handle, encoded, len(encoded), buffer, count, special, True)
            if found >= 0:
                return tuple(buffer[:found])
            if -found <= count:
                raise ValueError(f"llama.cpp cannot tokenize a text of {len(encoded)} bytes")
            count = -found

    def pieces(self) -> tuple[bytes, ...]:
        """The bytes of every token."""
        buffer = ctypes.create_string_buffer(1024)
        found = []
        for token in range(self.num_tokens):
            count: int = self._piece(self.handle, token, buffer, len(buffer), 0, False)
            found.append(ctypes.string_at(buffer, count) if count > 0 else b"")
        return tuple(found)

    def name(self, token: int) -> str:
        """How the vocabulary writes ``token``; empty for none."""
        text: bytes | None = self._text(self.handle, token) if 0 <= token < self.num_tokens else None
        return text.decode(errors="replace") if text else ""
