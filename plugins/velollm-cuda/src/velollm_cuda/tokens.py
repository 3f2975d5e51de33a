"""A model's tokenizer: text to ids and back, with the special tokens and the template that belong to it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import tokenizers

from velollm_core.errors import ModelFileError, VeloError
from velollm_cuda.chat import ChatMessage, ChatTemplate, find_template
from velollm_cuda.detokenize import Detokenizer, TokenTexts
from velollm_cuda.generation import read_object

FILE = "tokenizer.json"
SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
TOKENIZER_JSON = "`AutoTokenizer.from_pretrained(…).save_pretrained(…)` of transformers writes one"
LETTER = "a"
LONG_TEXT = 4096
"""Characters that take about a millisecond to read."""
# What models of SentencePiece are decoded by: only tokens of bytes ask for those beside them, and wait to be whole.
SPELLING: list[dict[str, object]] = [
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
    {"type": "ByteFallback"},
    {"type": "Fuse"},
]
FIRST_SPACE: dict[str, object] = {"type": "Strip", "content": " ", "start": 1, "stop": 0}


class Tokenizer:
    """What `tokenizers` makes of a folder's ``tokenizer.json``.

    ``special`` holds the special tokens by name (``eos_token``, …), ``template`` the chat template or None.
    """

    def __init__(
        self, inner: tokenizers.Tokenizer, special: Mapping[str, str], template: ChatTemplate | None = None
    ) -> None:
        # Some files carry the truncation and padding of a training run.
        inner.no_truncation()
        inner.no_padding()
        self._inner = inner
        self.special = dict(special)
        self.template = template
        self._alone = self._token_texts()

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Read the tokenizer of the model in ``folder``.

        Raises:
            ModelFileError: a file is missing or cannot be read.
        """
        path = folder / FILE
        if not path.exists():
            raise ModelFileError(f"{path}: not found; {TOKENIZER_JSON}")
        try:
            inner = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # `tokenizers` raises the bare class
            raise ModelFileError(f"{path}: cannot be read ({' '.join(str(error).split())[:200]})") from error
        config = read_object(folder / "tokenizer_config.json")
        special = _special(read_object(folder / "special_tokens_map.json")) | _special(config)
        return cls(inner, special, find_template(folder, config, special))

    @property
    def size(self) -> int:
        """Tokens it knows, the added ones among them."""
        return int(self._inner.get_vocab_size(with_added_tokens=True))

    @property
    def eos_id(self) -> int | None:
        """The token that ends a text, if it has one."""
        return self._inner.token_to_id(self.special["eos_token"]) if "eos_token" in self.special else None

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """The ids of ``text``; with ``special`` those a text begins with are added, as the model expects.

        Raises:
            VeloError: ``text`` holds half of a character.
        """
        try:
            if len(text) < LONG_TEXT:
                return list(self._inner.encode(text, add_special_tokens=special).ids)
            # By itself a text is read with every other thread held up, as one of several it is not.
            return list(self._inner.encode_batch([text], add_special_tokens=special)[0].ids)
        except TypeError as error:
            raise _half_a_character([text]) from error

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, computed side by side; raises like `encode`."""
        try:
            return [list(each.ids) for each in self._inner.encode_batch(list(texts), add_special_tokens=True)]
        except TypeError as error:
            raise _half_a_character(texts) from error

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of ``token_ids``, special tokens left out."""
        return str(self._inner.decode(token_ids, skip_special_tokens=True))

    def decode_all(self, token_ids: Sequence[Sequence[int]]) -> list[str]:
        """The text of each list of ids, computed side by side."""
        return list(self._inner.decode_batch(token_ids, skip_special_tokens=True))

    def _token_texts(self) -> TokenTexts | None:
        """Each token's own text, where the decoder is known to have nothing else to do with the tokens before it."""
        decoder = self._inner.decoder
        if isinstance(decoder, tokenizers.decoders.ByteLevel):
            return TokenTexts(self.decode)
        letter = self._inner.token_to_id(LETTER)
        if letter is None or _steps(decoder) not in (SPELLING, [*SPELLING, FIRST_SPACE]):
            return None
        # The space that a text begins with may be left out: it must have begun.
        return TokenTexts(self.decode, (letter,))

    def detokenizer(self) -> Detokenizer:
        """A decoder for one answer, token by token."""
        return Detokenizer(self.decode, self._alone)

    def chat_prompt(
        self, messages: Sequence[ChatMessage], *, tools: Sequence[object] | None = None, **extra: object
    ) -> str:
        """The text of a conversation, up to where the answer begins; it holds its special tokens already.

        Raises:
            VeloError: the model has no chat template, or its template refuses ``messages``.
        """
        if self.template is None:
            raise VeloError("the model has no chat template: give it a text prompt, or take its instruct version")
        return self.template.render(messages, tools=tools, **extra)  # type: ignore[arg-type]

    def encode_chat(
        self, messages: Sequence[ChatMessage], *, tools: Sequence[object] | None = None, **extra: object
    ) -> list[int]:
        """The ids of `chat_prompt`."""
        return self.encode(self.chat_prompt(messages, tools=tools, **extra), special=False)


def _steps(decoder: tokenizers.decoders.Decoder | None) -> object:
    return json.loads(decoder.__getstate__()).get("decoders") if decoder else None


def _half_a_character(texts: Sequence[str]) -> VeloError:
    """`tokenizers` says of such a string that it is none."""
    half = next((letter for text in texts for letter in text if "\ud800" <= letter <= "\udfff"), "")
    return VeloError(f"a text holds {half!a}, half of a character, which no tokenizer reads")


def _special(config: Mapping[str, object]) -> dict[str, str]:
    found = {}
    for name in SPECIAL:
        value = config.get(name)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            found[name] = text
    return found
