"""Chat templates: transformers' output on templates in the styles of several families; hostile ones can only fail."""

# ruff: noqa: E501 - templates are as they are

import contextlib
import os
import time
from datetime import datetime
from pathlib import Path

import pytest

from ree.errors import PlatformError, ReeError
from ree.generation import template as module
from ree.generation.template import MAX_OUTPUT, render, template_id

DATE = "2026-01-31"
CHATML = (
    "{%- for m in messages %}\n    {{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}\n{%- endfor %}\n"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
DATED = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}{%- set date_string = strftime_now("%d %b %Y") %}{%- else %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] | trim %}{%- set messages = messages[1:] %}
{%- else %}{%- set system = "" %}{%- endif %}
{{- "<|header|>system<|end|>\\n\\nToday: " + date_string + "\\n\\n" + system }}
{%- if tools is not none %}
    {{- "Call one of these:\\n\\n" }}{%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}
{%- endif %}{{- "<|eot|>" }}
{%- for message in messages %}
    {%- if 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}{{- raise_exception("one call at a time") }}{%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '{"name": "' + call.name + '", "parameters": ' }}{{- call.arguments | tojson }}{{- "}<|eot|>" }}
    {%- elif message.role == "tool" %}
        {{- "<|header|>ipython<|end|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}{{- message.content | tojson }}{%- else %}{{- message.content }}{%- endif %}{{- "<|eot|>" }}
    {%- else %}{{- '<|header|>' + message['role'] + '<|end|>\\n\\n'+ message['content'] | trim + '<|eot|>' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|header|>assistant<|end|>\\n\\n' }}{%- endif %}
"""
TOOLS_XML = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}{{- messages[0]['content'] }}{%- else %}{{- 'You help.' }}{%- endif %}
    {{- "\\n\\n# Tools\\n<tools>" }}
    {%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == "user" or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}{{- '\\n' + message.content }}{%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}{%- set tool_call = tool_call.function %}{%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}{{- tool_call.arguments | tojson }}{{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' }}{{- message.content }}{{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}"""
TURNS = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}{% set rest = messages[1:] %}{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}
{% for m in rest %}
{% if m['role'] == 'tool' %}{% continue %}{% endif %}
{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) and not tools %}{{ raise_exception('Roles must alternate') }}{% endif %}
<turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}
{{ (first if loop.first else '') + m['content'] | trim }}<end>
{% endfor %}
{% if add_generation_prompt %}<turn>model
{% endif %}"""
INST = """{%- set ns = namespace(system='', n=0) -%}
{%- for m in messages -%}
  {%- if m.role == 'system' -%}{%- set ns.system = m.content -%}
  {%- elif m.role == 'user' -%}{%- set ns.n = ns.n + 1 -%}
    {%- if loop.last and tools -%}[TOOLS]{{ tools | tojson }}[/TOOLS]{%- endif -%}
    {{ bos_token if ns.n == 1 }}[INST] {% if ns.system and ns.n == 1 %}<<SYS>>
{{ ns.system }}
<</SYS>>

{% endif %}{{ m.content }} [/INST]
  {%- elif m.role == 'assistant' -%}{% generation %} {{ m.content }}{{ eos_token }}{% endgeneration %}
  {%- else -%}{{ {'<r>': m.content, 'é&': 1.5} | tojson }}{%- if ns.n > 99 -%}{%- break -%}{%- endif -%}
  {%- endif -%}
{%- endfor -%}"""
STYLES = {"chatml": CHATML, "dated": DATED, "tools": TOOLS_XML, "turns": TURNS, "inst": INST}

SYSTEM = {"role": "system", "content": " Be brief.\n"}
USER = {"role": "user", "content": 'What is 2 < 3 & "é"? <|im_end|> {{ 7*7 }}'}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {
            "type": "function",
            "function": {"name": "f", "arguments": {"a": [1, 2.5, None], "b": "é<"}},
        }
    ],
}
TALKS = {
    "one": [USER],
    "system": [SYSTEM, USER],
    "turns": [SYSTEM, USER, {"role": "assistant", "content": "yes "}, USER],
    "calls": [USER, CALL, {"role": "tool", "content": "7"}, {"role": "tool", "content": "8"}],
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "f",
            "description": "é & <b>",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "array"}, "b": {"type": "string"}},
                "required": ["b"],
            },
        },
    }
]
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


@pytest.mark.parametrize("tools", [None, TOOLS])
@pytest.mark.parametrize("prompt", [True, False])
@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize("style", STYLES)
def test_as_transformers_renders_it(style, talk, prompt, tools, monkeypatch):
    from transformers.utils import chat_template_utils

    class Clock(datetime):
        @classmethod
        def now(cls):
            return cls.fromisoformat(DATE)

    monkeypatch.setattr(chat_template_utils, "datetime", Clock)

    def theirs():
        return chat_template_utils.render_jinja_template(
            conversations=[TALKS[talk]],
            chat_template=STYLES[style],
            tools=tools,
            add_generation_prompt=prompt,
            **SPECIAL,
        )[0][0]

    def ours():
        return render(
            STYLES[style],
            TALKS[talk],
            date=DATE,
            tools=tools,
            add_generation_prompt=prompt,
            special=SPECIAL,
        )

    assert ours() == theirs()


def test_what_the_template_itself_refuses_is_its_own_word():
    with pytest.raises(ReeError, match="the template says: Roles must alternate"):
        render(TURNS, [USER, USER], date=DATE)


def test_the_present_is_the_date_given():
    assert "Today: 31 Jan 2026\n" in render(DATED, [USER], date=DATE, special=SPECIAL)
    assert "Today: 01 Feb 2026\n" in render(
        DATED, [USER], date="2026-02-01T23:59:59", special=SPECIAL
    )
    with pytest.raises(ReeError, match="the date is 'yesterday'"):
        render(DATED, [USER], date="yesterday")


def test_the_order_of_keys_is_of_no_effect():
    def turned(x):
        if isinstance(x, dict):
            return {k: turned(x[k]) for k in sorted(x, reverse=True)}
        return [turned(y) for y in x] if isinstance(x, list) else x

    for style in STYLES.values():
        want = render(style, TALKS["calls"], date=DATE, tools=TOOLS, extra={"x": {"a": 1, "b": 2}})
        have = render(
            style,
            turned(TALKS["calls"]),
            date=DATE,
            tools=turned(TOOLS),
            extra={"x": {"b": 2, "a": 1}},
        )
        assert have == want


def test_names_beyond_messages():
    assert render(TOOLS_XML, [USER], date=DATE, extra={"enable_thinking": False}).endswith(
        "</think>\n\n"
    )
    assert (
        render("{{ messages[0].content }}", [USER], date=DATE, extra={"messages": "no"})
        == USER["content"]
    )


def test_a_template_is_known_by_its_bytes():
    assert template_id("é") == "4a99557e4033c3539de2eb65472017cad5f9557f7a0625a09f1c3f6e2ba69c4c"


def test_it_is_quick_once_started():
    render(CHATML, TALKS["turns"], date=DATE)
    start = time.perf_counter()
    for _ in range(50):
        render(CHATML, TALKS["turns"], date=DATE)
    assert (time.perf_counter() - start) / 50 < 0.05  # 0.3 ms where nothing else runs


HOSTILE = {
    "a loop": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "a power": "{{ 10**10**9 % 7 + 10 ** (10 ** 9) }}",
    "a range": "{% for i in range(10**9) %}{% endfor %}",
    "a long text": "{{ 'a' * 10**10 }}",
    "growth": "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x }}",
    "lists": "{% set n = namespace(x=[0]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x }}",
    "output": "{% for i in range(99999) %}{{ 'a' * 100 }}{% endfor %}",
    "recursion": "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
    "nesting": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "a width": "{{ '%9999999999d' % 3 }}",
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ cycler.__init__.__globals__.os.system('true') }}",
    "a file": "{% include '/etc/passwd' %}",
    "an import": "{% import 'os' as os %}",
    "an address": "{{ range }}",
    "chance": "{{ [1, 2, 3] | random }}",
    "more chance": "{{ lipsum() }}",
    "syntax": "{% if %}",
    "an undefined name": "{{ a.b }}",
    "half a pair": "{{ '\\ud800' }}",
    "no tag": "{% generation %}x",
    "mutation": "{% set x = messages.append(1) %}{{ messages[0].update({'role': 'x'}) }}{{ messages[5].role }}"
    "{{ raise_exception(messages | length) }}",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_template_is_one_line_in_bounded_time(what):
    start = time.monotonic()
    with pytest.raises(ReeError, match="the chat template") as e:
        render(HOSTILE[what], [USER], date=DATE)
    assert time.monotonic() - start < 20  # 2 s, and a start; more where the machine is busy
    assert "\n" not in e.value.message
    assert len(e.value.message) < 1000
    assert render(CHATML, [USER], date=DATE).startswith(
        "<|im_start|>user\n"
    )  # and the next is served


@pytest.mark.parametrize(
    "trick",
    [
        "{{ ''|attr('__class__')|attr('__mro__')|list }}",
        "{{ '{0.__class__}'.format('') }}",
        "{{ messages.append }}",
    ],
)
def test_a_trick_finds_nothing(trick):
    assert render(trick, [USER], date=DATE) in ("", "[]")


def test_what_a_template_holds_is_not_kept_for_the_next():
    """Constants of a compiled template stay in memory, so the process that has them is not used again."""
    assert render("{{ 1 }}", [USER], date=DATE) == "1"
    first = module._worker._process.pid
    assert render("{% set x = 'a' * 31457280 %}2", [USER], date=DATE) == "2"
    assert render("{{ 3 }}", [USER], date=DATE) == "3"
    assert module._worker._process.pid != first


def test_the_output_is_bounded():
    assert len(render(f"{{{{ 'é' * {MAX_OUTPUT} }}}}", [USER], date=DATE)) == MAX_OUTPUT
    with pytest.raises(ReeError, match="over 10 characters"):
        render("{{ 'a' * 11 }}", [USER], date=DATE, max_output=10)


def test_what_is_given_is_bounded_and_json():
    with pytest.raises(ReeError, match="bytes, expected at most"):
        render("{# " + "a" * (2 << 20) + " #}", [USER], date=DATE)
    with pytest.raises(ReeError, match="is not JSON"):
        render(CHATML, [USER], date=DATE, extra={"x": object()})


def test_no_file_can_be_opened_where_templates_run():
    """Were the sandbox broken: from inside Jinja's own code, a file cannot be read."""
    render(CHATML, [USER], date=DATE)
    limits = Path(f"/proc/{module._worker._process.pid}/limits").read_text()
    for what in ("Max open files", "Max processes", "Max file size"):
        (line,) = [x for x in limits.splitlines() if x.startswith(what)]
        assert line.removeprefix(what).split()[:2] == ["0", "0"]


def test_a_child_of_fork_has_a_process_of_its_own_and_leaves_no_zombie():
    render(CHATML, [USER], date=DATE)
    ours = module._worker._process.pid
    child = os.fork()
    if child == 0:
        code = 1
        try:
            text = render(CHATML, [USER], date=DATE)
            code = (
                0 if text.startswith("<|im_start|>") and module._worker._process.pid != ours else 2
            )
            module._worker.close()
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert render(CHATML, [USER], date=DATE).startswith("<|im_start|>")
    assert module._worker._process.pid == ours
    module._worker.close()
    with pytest.raises(ProcessLookupError):
        os.kill(ours, 0)  # not there, not even as a zombie


def test_a_process_that_was_killed_is_started_again():
    render(CHATML, [USER], date=DATE)
    module._worker._process.kill()
    with contextlib.suppress(ReeError):  # it may be found dead, or die with the request
        render(CHATML, [USER], date=DATE)
    assert render(CHATML, [USER], date=DATE).startswith("<|im_start|>")


def test_without_jinja_it_says_what_to_install(monkeypatch, tmp_path):
    module._worker.close()
    (tmp_path / "template_worker.py").write_text("import jinja3")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "template.py"))
    with pytest.raises(PlatformError, match="does not start"):
        render(CHATML, [USER], date=DATE)


PLACES = [
    "{{ [joiner()] }}", '{{ joiner() ~ "" }}', '{{ "%s" % cycler("a") }}', '{{ ["".upper] }}', '{{ cycler(1).next|string }}',
    '{{ [1]|map("string") ~ "" }}', '{{ [1, 2]|reverse ~ "" }}', '{{ {"a": 1}|items|pprint }}', "{{ [raise_exception] }}",
    "{{ strftime_now|string }}", '{{ "{}".format(joiner()) }}', "{% block b %}{% endblock %}{{ [self.b] }}",
    '{{ [""|attr("upper")] }}', '{{ ["a"]|map(attribute="upper")|list }}', "{{ [dict.fromkeys] }}",
    '{{ namespace(a=joiner()) ~ "" }}', "{% for x in [1] %}{{ [loop.cycle] }}{% endfor %}",
]  # fmt: skip


@pytest.mark.parametrize("template", PLACES)
def test_nothing_shows_where_it_lies_in_memory(template):
    """Another place in every process: a prompt that nobody else could make again."""
    with pytest.raises(ReeError, match="the template prints a"):
        render(template, [USER], date=DATE)


def test_functions_and_iterators_are_of_use_all_the_same():
    template = (
        '{% set u = "x".upper %}{{ u() }}{{ [1, 2]|map("string")|join(",") }}{{ [3, 4]|reverse|list }}'
        '{% for k, v in {"a": 1}.items() %}{{ k }}{{ v }}{% endfor %}{{ "{}-{}".format(1, "b") }}'
        '{% set c = cycler("a", "b") %}{{ c.next() }}{{ c.next() }}{{ [1, 2, 3]|select("odd")|first }}'
        '{{ {"z": 1}.get("z") }}{{ ["a", "b"]|map("upper")|list }}{% set j = joiner(",") %}{{ j() }}{{ j() }}'
        '{{ "".upper is callable }}{{ ([1]|map("string")) is iterable }}{{ strftime_now("%Y") }}'
        "{% for x in [7] %}{{ namespace(l=loop).l.index }}{{ (loop|default(1)).last }}{% endfor %}"
    )
    want = "X1,2[4, 3]a11-bab11['A', 'B'],TrueTrue20261True"
    assert render(template, [USER], date="2026-01-31") == want
