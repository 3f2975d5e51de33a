"""Chat templates: the models' own programs, run where they can do no harm."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest
from velollm_cuda.chat import ChatTemplate, find_template
from velollm_cuda.testing import write_tiny_model
from velollm_cuda.tokens import Tokenizer

from velollm_core.errors import ModelFileError, VeloError

HELLO = [{"role": "user", "content": "hello"}]


def render(source: str, **extra: object) -> str:
    return ChatTemplate(source, "here", {"eos_token": "</s>"}).render(HELLO, **extra)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ messages[0]['content'] }}{{ eos_token }}", "hello</s>"),
        ("{{ messages[0].role }}", "user"),
        ("{% if add_generation_prompt %}go{% endif %}", "go"),
        ("{{ {'a': '<ü>'} | tojson }}", '{"a": "<ü>"}'),
        ("{{ [1] | tojson(indent=2) }}", "[\n  1\n]"),
        ("{% for x in range(9) %}{% if x == 2 %}{% break %}{% endif %}{{ x }}{% endfor %}", "01"),
        ("{% generation %}said{% endgeneration %}!", "said!"),
        ("{% if tools is none %}no tools{% endif %}", "no tools"),
        ("a\n  {% if true %}\nb\n  {% endif %}\nc", "a\nb\nc"),
        ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", "1"),
    ],
)
def test_templates_find_what_they_expect(source: str, text: str) -> None:
    assert render(source) == text


def test_switches_and_the_date_reach_the_template() -> None:
    assert render("{{ enable_thinking }}", enable_thinking=False) == "False"
    assert render("{{ strftime_now('%Y') }}") == str(datetime.now().year)
    assert render("{{ tools[0].name }}", tools=[{"name": "clock"}]) == "clock"


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{% for x in range(10 ** 9) %}{% endfor %}",
        "{{ messages[0]['content'] + 1 }}",
        "{{ nothing.at_all }}",
    ],
)
def test_a_refusal_is_one_line(source: str) -> None:
    with pytest.raises(VeloError, match="here: the chat template refuses") as raised:
        render(source)
    assert len(str(raised.value).splitlines()) == 1


def test_a_refusal_keeps_the_templates_own_words() -> None:
    with pytest.raises(VeloError, match="roles must alternate"):
        render("{{ raise_exception('roles must alternate') }}")


def test_no_template_at_all(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="here: no chat template, line 2"):
        render("\n{% if %}")
    folder = write_tiny_model(tmp_path / "model")
    (folder / "tokenizer_config.json").write_text("{}")
    with pytest.raises(VeloError, match="has no chat template"):
        Tokenizer.load(folder).chat_prompt(HELLO)


def test_where_templates_lie(tmp_path: Path) -> None:
    config: dict[str, object] = {
        "chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]
    }

    def found() -> str:
        template = find_template(tmp_path, config, {})
        assert template is not None
        return template.render(HELLO)

    assert find_template(tmp_path, {}, {}) is None
    assert found() == "d"
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "j"}))
    assert found() == "j"
    (tmp_path / "chat_template.jinja").write_text("file")
    assert found() == "file"
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(ModelFileError, match="cannot be read"):
        found()
