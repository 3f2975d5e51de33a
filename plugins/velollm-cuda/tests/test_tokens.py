"""Text to tokens and back: exact, in pieces, and as the model's own library does it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers
from velollm_cuda.answer import AnswerText
from velollm_cuda.detokenize import Detokenizer
from velollm_cuda.testing import SPECIAL, write_configuration, write_tiny_model
from velollm_cuda.tokens import LONG_TEXT, Tokenizer

from velollm_core.errors import ModelFileError, VeloError

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="<"), max_size=24)
SAYINGS = ["Hello, world", "zwölf Boxkämpfer", "日本語 🎉🏳️‍🌈", " two  spaces ", "a\n\n\tb", "e\u0301"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tokens") / "model")


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder)


def pieces(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    detokenizer = tokenizer.detokenizer()
    return [*(detokenizer.feed((token,)) for token in ids), detokenizer.finish()]


def fallback_tokenizer(*last: decoders.Decoder) -> Tokenizer:
    """The other great kind: words with ``▁`` for the space before them, bytes where no word will do."""
    words = ["▁", "▁Hello", "▁world", "Hello", "a", "b", "▁a"]
    names = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    vocabulary = {name: index for index, name in enumerate(names)}
    inner = tokenizers.Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *last])
    inner.add_special_tokens(["</s>"])
    return Tokenizer(inner, {"eos_token": "</s>"})


FALLBACK = fallback_tokenizer(decoders.Strip(" ", 1, 0))
SPACED = fallback_tokenizer()
UNKNOWN = fallback_tokenizer(decoders.Strip(" ", 1, 1))


def shards_tokenizer() -> Tokenizer:
    """Tokens of bytes that begin and end anywhere in a character, one special token among them."""
    spelt = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    names = {"".join(name for name, _ in spelt.pre_tokenize_str(text))[cut] for text in SAYINGS for cut in CUTS}
    inner = tokenizers.Tokenizer(models.BPE({name: number for number, name in enumerate(sorted(names - {""}))}, []))
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(["</s>"])
    return Tokenizer(inner, {"eos_token": "</s>"})


CUTS = [slice(start, start + size) for start in range(40) for size in (1, 2, 3, 5)]
SHARDS = shards_tokenizer()


@given(st.lists(st.integers(0, 319), max_size=40))
@settings(max_examples=150, deadline=None)
def test_pieces_of_any_tokens_are_the_whole(tokenizer: Tokenizer, ids: list[int]) -> None:
    assert "".join(pieces(tokenizer, ids)) == tokenizer.decode(ids)


@given(st.lists(st.integers(0, SHARDS.size), max_size=40))
@settings(max_examples=150, deadline=None)
def test_pieces_of_shards_of_characters_are_the_whole(ids: list[int]) -> None:
    assert "".join(pieces(SHARDS, ids)) == SHARDS.decode(ids)


@given(TEXT)
@settings(max_examples=100, deadline=None)
def test_text_survives(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert "".join(pieces(tokenizer, ids)) == text


@given(TEXT)
@settings(max_examples=100, deadline=None)
def test_pieces_of_words_and_bytes_are_the_whole(text: str) -> None:
    ids = FALLBACK.encode(text)
    assert "".join(pieces(FALLBACK, ids)) == FALLBACK.decode(ids)


def test_a_special_token_does_not_swallow_the_space_behind_it() -> None:
    vocabulary = FALLBACK._inner.get_vocab()
    ids = [vocabulary[name] for name in ("▁Hello", "</s>", "</s>", "▁world", "</s>", "▁a")]
    assert "".join(pieces(FALLBACK, ids)) == FALLBACK.decode(ids) == "Hello world a"


@pytest.mark.parametrize("text", SAYINGS)
def test_no_piece_holds_half_a_character(tokenizer: Tokenizer, text: str) -> None:
    found = pieces(tokenizer, tokenizer.encode(text))
    assert "".join(found) == text
    assert not any("\ufffd" in piece for piece in found)


def test_others_go_on_while_a_long_text_is_read(tokenizer: Tokenizer) -> None:
    text = "zwölf Boxkämpfer, " * 20_000
    reading = threading.Thread(target=tokenizer.encode, args=(text,))
    reading.start()
    turns = 0
    while reading.is_alive():
        time.sleep(0.001)
        turns += 1
    assert turns > 5


@pytest.mark.parametrize("text", [" two  spaces\n", "日本語 🎉", "</s> a"])
@pytest.mark.parametrize("special", [True, False])
def test_a_long_text_is_read_like_a_short_one(tokenizer: Tokenizer, text: str, special: bool) -> None:
    whole = text * (LONG_TEXT // len(text) + 1)
    assert tokenizer.encode(whole, special=special) == tokenizer._inner.encode(whole, add_special_tokens=special).ids
    with pytest.raises(VeloError, match="half of a character"):
        tokenizer.encode(whole + "\ud83c", special=special)


def test_each_token_costs_a_window_not_the_whole() -> None:
    seen: list[int] = []

    def decode(ids: Sequence[int]) -> str:
        seen.append(len(ids))
        return "x" * len(ids)

    Detokenizer(decode).feed(range(1000))
    assert max(seen) <= 9


@pytest.mark.parametrize("kind", [FALLBACK, SPACED])
@given(st.lists(st.one_of(TEXT, st.sampled_from(["</s>", "▁", "▁world", "a"])), max_size=8))
@settings(max_examples=150, deadline=None)
def test_pieces_of_texts_and_single_tokens_are_the_whole(kind: Tokenizer, texts: list[str]) -> None:
    vocabulary = kind._inner.get_vocab()
    ids = [token for text in texts for token in ([vocabulary[text]] if text in vocabulary else kind.encode(text))]
    assert "".join(pieces(kind, ids)) == kind.decode(ids)


@pytest.mark.parametrize("kind", ["tokenizer", "SHARDS", "FALLBACK", "SPACED"])
def test_a_token_of_whole_characters_is_decoded_once(
    tokenizer: Tokenizer, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = tokenizer if kind == "tokenizer" else globals()[kind]
    ids = [used._inner.token_to_id("a")] * 9
    assert pieces(used, ids) == ["a"] * 9 + [""]
    begun = used.detokenizer()
    begun.feed(ids[:1])
    monkeypatch.setattr(used, "_inner", None)
    assert begun.feed(ids) == "a" * 9


def test_with_other_decoders_a_token_is_decoded_with_those_before_it() -> None:
    assert UNKNOWN.detokenizer().alone is None
    assert Tokenizer(tokenizers.Tokenizer(models.BPE()), {}).detokenizer().alone is None


def test_endless_garbage_is_said_in_bounded_windows(tokenizer: Tokenizer) -> None:
    longest = 0

    def decode(ids: Sequence[int]) -> str:
        nonlocal longest
        longest = max(longest, len(ids))
        return tokenizer.decode(ids)

    garbage = tokenizer._inner.token_to_id("ÿ")
    text = Detokenizer(decode).feed([garbage] * 500)
    assert len(text) > 490
    assert longest < 160


def test_what_is_missing_comes_at_the_end(tokenizer: Tokenizer) -> None:
    detokenizer = tokenizer.detokenizer()
    assert detokenizer.feed(tokenizer.encode("a€")[:-1]) == "a"
    assert detokenizer.finish() == "\ufffd"
    assert detokenizer.finish() == ""


def test_transformers_agrees(folder: Path, tokenizer: Tokenizer) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "user", "content": "Grüße"}, {"role": "assistant", "content": "<b>"}]
    for text in SAYINGS:
        assert tokenizer.encode(text) == theirs(text)["input_ids"]
        assert tokenizer.decode(tokenizer.encode(text)) == theirs.decode(theirs(text)["input_ids"], True)
    wanted = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert tokenizer.chat_prompt(messages) == wanted
    assert tokenizer.encode_chat(messages)[:2] == [256, 259]


def test_special_tokens_may_stand_in_the_older_file(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "model")
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": {"content": "</s>"}}))
    assert Tokenizer.load(folder).eos_id == 257
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<s>", "bos_token": None}))
    assert Tokenizer.load(folder).eos_id == 256


def test_a_trainings_truncation_is_not_ours(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "model")
    inner = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    inner.enable_truncation(4)
    inner.enable_padding(length=4)
    inner.save(str(folder / "tokenizer.json"))
    assert len(Tokenizer.load(folder).encode("x" * 100)) == 101


def test_the_vocabulary_is_filled(tmp_path: Path) -> None:
    write_configuration(tmp_path, {"vocab_size": 1000, "eos_token_id": 257})
    assert Tokenizer.load(tmp_path).size == 1000
    assert Tokenizer.load(tmp_path).encode_all(["a", "<s>"]) == [[256, 64], [256, 256]]
    assert len(SPECIAL) == 5


def damage(name: str, content: str | None) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        if content is not None:
            (folder / name).write_text(content)

    return apply


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (damage("tokenizer.json", None), "not found"),
        (damage("tokenizer.json", "{"), "cannot be read"),
        (damage("tokenizer.json", '{"version": "1.0"}'), "cannot be read"),
        (damage("tokenizer_config.json", "[]"), "holds no object"),
        (damage("tokenizer_config.json", "no"), "cannot be read"),
        (damage("special_tokens_map.json", "1"), "holds no object"),
    ],
)
def test_an_unsound_folder_is_one_line(tmp_path: Path, harm: Callable[[Path], None], words: str) -> None:
    folder = write_tiny_model(tmp_path / "model")
    harm(folder)
    with pytest.raises(ModelFileError, match=words) as raised:
        Tokenizer.load(folder)
    assert len(str(raised.value).splitlines()) == 1


def test_half_of_a_character_is_no_text(tokenizer: Tokenizer) -> None:
    for encode in (lambda: tokenizer.encode("a\ud83c"), lambda: tokenizer.encode_all(["a", "\udf89b"])):
        with pytest.raises(VeloError, match=r"holds '\\ud\w{3}', half of a character"):
            encode()


def said(tokenizer: Tokenizer, text: str, *stops: str, min_tokens: int = 0) -> tuple[list[str], AnswerText]:
    answer = AnswerText(tokenizer.detokenizer(), stops, min_tokens)
    ids = tokenizer.encode(text, special=False)
    return [*(answer.feed((token,)) for token in ids), answer.finish()], answer


def test_the_beginning_of_a_stop_string_waits(tokenizer: Tokenizer) -> None:
    found, answer = said(tokenizer, "one ENx two END three", "END")
    assert found[4:8] == ["", "", "ENx", " "]
    assert "".join(found) == answer.text == "one ENx two "
    assert (answer.found, answer.count) == ("END", 15)


def test_the_first_of_several_stop_strings_counts(tokenizer: Tokenizer) -> None:
    found, answer = said(tokenizer, "abcabd", "cab", "bca")
    assert ("".join(found), answer.found) == ("a", "bca")
    found, answer = said(tokenizer, "abcabd", "bd", min_tokens=6)
    assert ("".join(found), answer.found) == ("abcabd", None)
    found, answer = said(tokenizer, "abcabd", "bd", "bc", min_tokens=5)
    assert ("".join(found), answer.found) == ("abca", "bd"), "what begins early may end it later"
    assert "".join(said(tokenizer, "aaab", "aab")[0]) == "a"


@given(st.text("ab", max_size=12), st.lists(st.text("ab", min_size=1, max_size=3), max_size=2))
@settings(max_examples=150, deadline=None)
def test_what_is_said_is_the_text_before_the_first_stop(tokenizer: Tokenizer, text: str, stops: list[str]) -> None:
    found, answer = said(tokenizer, text, *stops)
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    if not ends:
        assert "".join(found) == text
        return
    first = min(ends)
    assert "".join(found) == text[: min(first - len(stop) for stop in stops if text[:first].endswith(stop))]
    assert answer.count == first
