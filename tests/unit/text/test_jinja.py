"""Templates render as they do in transformers, and none can hang, crash or fill the process that asks."""

# ruff: noqa: E501  templates stand on one line, as they are published

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from transformers.utils import chat_template_utils

from bestiary.errors import RequestError, TemplateError
from bestiary.text import jinja
from bestiary.text.jinja import Sandbox

LONGEST_STOP = 1.5  # seconds


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as made:
        yield made


@pytest.fixture(scope="module")
def quick() -> Iterator[Sandbox]:
    """A sandbox that does not wait long for what never ends."""
    with Sandbox(seconds=0.25) as made:
        yield made


# The language.

CONTEXT: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": '  Bé <b>brief</b> & "exact".\n'},
        {"role": "user", "content": "1 < 2?\n\n'yes' \u2603 🙂"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1.5}}}],
        },
    ],
    "tools": [
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "required": ["x"]}}}
    ],
    "documents": None,
    "add_generation_prompt": True,
    "bos_token": "<s>",
}

LANGUAGE = [
    "{% for m in messages %}\n  {% if m.content %}\n{{ m['role'] }}: {{ m.content | trim }}\n  {% endif %}\n{% endfor %}\n",
    "{%- for m in messages -%} {{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }} {%- endfor -%}",
    "{% for m in messages %}{% if loop.index0 == 1 %}{% continue %}{% endif %}{{ m.role }}{% endfor %}",
    "{% for m in messages %}{% if loop.index0 == 1 %}{% break %}{% endif %}{{ m.role }}{% endfor %}",
    "{{ tools | tojson }}{{ tools | tojson(indent=4) }}{{ messages[1].content | tojson }}",
    "{{ messages | tojson(ensure_ascii=True, separators=(',', ':'), sort_keys=True) }}",
    "{% set ns = namespace(found=false, n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
    "{% macro turn(role, text='') %}<{{ role }}>{{ text }}{{ caller() if caller }}{% endmacro %}{{ turn('a', 'b') }}",
    "{% macro m(x) %}[{{ x }}{{ caller() }}]{% endmacro %}{% call m('a') %}b{% endcall %}{{ varargs }}",
    "{{ bos_token }}{{ eos_token }}{{ missing is defined }}{{ missing }}|{{ missing or 'or' }}",
    "{{ messages | map(attribute='role') | join(', ') }}{{ messages | selectattr('content') | list | length }}",
    "{{ messages[0].content.strip().upper().split(' ')[0].replace('B', 'b') }}{{ 'x%sy' % 3 }}{{ '%05d' | format(7) }}",
    "{{ messages[1:] | length }}{{ messages[-1]['tool_calls'][0].function.arguments | items | list }}",
    "{{ messages[-1].tool_calls[0].function.arguments.items() | list }}{{ {'a': 1, 'b': [2, none]} }}",
    "{% generation %}{% set x = 1 %}text{{ x }}{% endgeneration %}{{ x }}",
    "{{ range(3) | list }}{{ dict(a=1) }}{{ dict.fromkeys(['k'], 0) }}{{ 'a' in 'cat' }}{{ 7 // 2 }}{{ 2 ** 10 }}{{ 1.0 }}",
    "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{% set j = joiner(', ') %}{{ j() }}x{{ j() }}y",
    "{{ messages | length is divisibleby 3 }}{{ 'x' is string }}{{ messages is iterable }}{{ {} is mapping }}",
    "{% filter upper %}abc{% endfilter %}{% raw %}{{ raw }}{% endraw %}{# comment #}{{ '\\u00e9\\n' }}{{ \"it's\" }}",
    "{{ 'abc' | indent(2, true) }}{{ [3, 1, 2] | sort | first }}{{ 'a b' | title }}{{ 'x' ~ 1 ~ none }}{{ 'Ab' | e }}",
    "{% for k, v in {'b': 1, 'a': 2} | dictsort %}{{ k }}={{ v }};{% else %}none{% endfor %}{{ 3.14159 | round(2) }}",
    "{{ '{}-{x}'.format(1, x='y') }}{{ 'abc'[1] }}{{ 'abc'.startswith('a') }}{{ 'a,b'.split(',') }}{{ 'q' * 3 }}",
    "{% if messages[0].role == 'system' %}{% set rest = messages[1:] %}{% endif %}{{ rest | length }}",
    "{% for m in messages recursive %}{{ loop.depth }}{{ loop.previtem is defined }}{{ loop.changed(m.role) }}{% endfor %}",
    "a\n    {% if true %}\n    b\n    {% endif %}\nc\n",
]


@pytest.mark.parametrize("template", LANGUAGE)
def test_the_language_is_that_of_transformers(template: str, sandbox: Sandbox) -> None:
    wanted = chat_template_utils._compile_jinja_template(template).render(**CONTEXT)
    assert sandbox.render(template, CONTEXT) == wanted


def test_the_clock_is_local_and_stands_still(sandbox: Sandbox) -> None:
    now = datetime(2024, 7, 26, 23, 59, 59, 999_999)
    template = "{{ strftime_now('%d %b %Y %H:%M:%S.%f %j') }}"
    assert sandbox.render(template, {}, now=now) == "26 Jul 2024 23:59:59.999999 208"
    assert sandbox.render("{{ strftime_now('%Y') }}", {}) in (
        str(datetime.now().year),
        str(datetime.now().year - 1),
    )


def test_the_same_request_gives_the_same_text(sandbox: Sandbox) -> None:
    texts = {
        sandbox.render("{% for i in range(9) %}{{ range(1000) | random }}{% endfor %}", {}) for _ in range(5)
    }
    assert len(texts) == 1


def test_one_request_leaves_nothing_for_the_next(sandbox: Sandbox) -> None:
    sandbox.render("{% set a = 1 %}{% macro b() %}{% endmacro %}{% set n = namespace(x=1) %}", {"c": 1})
    assert (
        sandbox.render("{{ a is defined }}{{ b is defined }}{{ n is defined }}{{ c is defined }}", {})
        == "False" * 4
    )


def test_a_template_speaks_for_itself(sandbox: Sandbox) -> None:
    with pytest.raises(RequestError, match=r"refuses this conversation: Roles must alternate  \[31m\?$"):
        sandbox.render("{{ raise_exception('Roles must alternate\\n\\u001b[31m?') }}", {})
    with pytest.raises(TemplateError, match="not valid Jinja: line 2: "):
        sandbox.render("x\n{% endfor %}", {})
    with pytest.raises(TemplateError, match="UndefinedError: 'a' is undefined"):
        sandbox.render("{{ a.b }}", {})
    with pytest.raises(TemplateError, match="262145 characters: 262144 are the limit"):
        sandbox.render(" " * (jinja.TEMPLATE_LIMIT + 1), {})


def test_large_conversations_fit(sandbox: Sandbox) -> None:
    text = "\U000f0000" * (2 << 20)
    assert (
        sandbox.render("{% for t in texts %}{{ t | trim }}{% endfor %}", {"texts": [text, text]}) == text * 2
    )


# Templates that never end, or grow.

NUMBERS = "range(100000)"
ENDLESS = [
    f"{{% for i in {NUMBERS} %}}{{% for j in {NUMBERS} %}}{{% endfor %}}{{% endfor %}}",
    f"{{% for i in {NUMBERS} %}}{{% for j in {NUMBERS} %}}{{{{ '' }}}}{{% endfor %}}{{% endfor %}}",
    f"{{% for i in {NUMBERS} %}}{{{{ {NUMBERS} | sum }}}}{{% endfor %}}",
    f"{{% for i in {NUMBERS} %}}{{% set x = {NUMBERS} | list %}}{{% endfor %}}",
    f"{{% for i in {NUMBERS} %}}{{% if {NUMBERS} | max == 1 %}}{{% break %}}{{% endif %}}{{% endfor %}}",
    f"{{% for i in {NUMBERS} %}}{{% if 'b' in 'a' * (1000000 + i) %}}{{% endif %}}{{% endfor %}}",
    f"{{% macro m(n) %}}{{% for i in {NUMBERS} %}}{{{{ m(n) if n else '' }}}}{{% endfor %}}{{% endmacro %}}{{{{ m(1) }}}}",
    f"{{% for i in {NUMBERS} %}}{{% for m in messages %}}{{% for j in {NUMBERS} %}}{{% endfor %}}{{% endfor %}}{{% endfor %}}",
    f"{{% for i in {NUMBERS} if {NUMBERS} | list | length == 1 %}}x{{% endfor %}}",
    f"{{{{ {NUMBERS} | map('string') | map('list') | map('join') | select('equalto', {NUMBERS} | sum) | list }}}}",
    (
        f"{{% set ns = namespace(x=0) %}}{{% for i in {NUMBERS} %}}{{% for j in {NUMBERS} %}}{{% set ns.x = ns.x + 1 %}}"
        "{% endfor %}{% endfor %}"
    ),
    f"{{% for i in {NUMBERS} recursive %}}{{{{ loop({NUMBERS}) if loop.depth < 5 }}}}{{% endfor %}}",
    (
        f"{{% set c = cycler(1, 2) %}}{{% for i in {NUMBERS} %}}{{% for j in {NUMBERS} %}}{{% set _ = c.next() %}}"
        "{% endfor %}{% endfor %}"
    ),
    "{{ 9 ** (9 ** 9) }}",
    "{{ (10 ** 400000) ** 400000 % 7 }}",
    "{% set x = 7 ** 3000000 %}{{ x * x * x % 10 }}{{ x | string | length }}",
    "{{ ('a' * 20000000) | replace('a', '') | replace('b', '') }}{{ ('ab' * 9000000) | wordcount }}"
    + "{{ ('a ' * 9000000) | title | upper | lower | capitalize | trim | length }}" * 20,
    "{{ (('a ' * 500000) | wordwrap(1) | wordwrap(2) | wordwrap(3)) | length }}" * 50,
    "{{ ('<' * 3000000) | e | e | e | length }}" * 50,
    "{{ ('(' * 50000) | urlize | length }}{{ ('www.a.com ' * 300000) | urlize | length }}" * 50,
    "{{ ('<a' * 200000) | striptags | length }}" * 200,
]
HUGE = [
    "{{ 'a' * 10 ** 9 }}",
    "{{ 'a' * 10 ** 8 }}",
    "{{ 'a' * 2 ** 62 }}",
    "{{ 'a' * 10 ** 30 }}",
    "{{ ['a'] * 10 ** 9 }}",
    "{{ [[0] * 10 ** 4] * 10 ** 8 }}",
    "{{ (1, 2) * 10 ** 9 }}",
    "{{ 'a' | center(10 ** 9) }}",
    "{{ 'a'.center(10 ** 9) }}",
    "{{ 'a'.ljust(10 ** 9) }}{{ 'a'.rjust(10 ** 9) }}",
    "{{ '7'.zfill(10 ** 9) }}",
    "{{ '\\t'.expandtabs(10 ** 9) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%1000000000s' | format('x') }}",
    "{{ '%.1000000000f' % 1.0 }}",
    "{{ '%*d' % (1000000000, 1) }}",
    "{{ '{:1000000000}'.format('x') }}",
    "{{ '{:>{w}}'.format('x', w=1000000000) }}",
    "{{ 'a' | indent(10 ** 9, true) }}",
    "{{ ('a' * 10000) | replace('a', 'a' * 100000) }}",
    "{{ ('a' * 10000).replace('a', 'a' * 100000) }}",
    "{{ 'x'.join(['a' * 10000] * 100000) }}",
    "{{ (['a' * 10000] * 100000) | join('x') }}",
    "{{ 'a' ~ 'b' * 500000000 }}",
    "{{ (range(100000) | list) * 10000 }}",
    "{{ [range(100000) | list] * 1000 | length }}{{ (range(100000) | list) * 3000 }}",
    "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
    (
        "{% set ns = namespace(x={}) %}{% for i in range(100000) %}{% set ns.x = dict(ns.x, a=[ns.x, ns.x]) %}{% endfor %}"
        "{{ ns.x }}"
    ),
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
    "{% macro m(x) %}{{ m(x ~ x) }}{% endmacro %}{{ m('aaaaaaaaaaaaaaaa') }}",
    "{% for i in range(100000) %}{{ 'a' * 1000 }}{% endfor %}",
    "{% for i in range(100000) %}aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa{% endfor %}",
    "{% for i in range(100000) %}{{ i }},{% endfor %}",
    "{% set x %}{% for i in range(100000) %}{{ 'a' * 10000 }}{% endfor %}{% endset %}",
    "{% filter upper %}{% for i in range(100000) %}{{ 'a' * 10000 }}{% endfor %}{% endfilter %}",
    "{{ messages | tojson(indent=1000000000) }}",
    "{{ {'a': {'b': 1}} | tojson(indent=500000000) }}",
    "{{ range(10 ** 6) | list }}",
    "{{ 'é'.encode('utf-8') * 10 ** 9 }}",
    "{{ " + "(" * 20000 + "1" + ")" * 20000 + " }}",
    "{{ " + "-" * 100000 + "1 }}",
    "{{ " + "[" * 5000 + "]" * 5000 + " }}",
    "{% if true %}" * 3000 + "{% endif %}" * 3000,
    "{% for i in [1] %}" * 100 + "x" + "{% endfor %}" * 100,
    "{{ 1" + " + 1" * 30000 + " }}",
    "{{ a" + ".b" * 60000 + " }}",
    "{{ strftime_now('%999999999d' * 10) }}{{ strftime_now('%Y' * 10000000) }}",
    "{{ lipsum(n=100000000) }}",
    "{{ 'a' | batch(1, 'x') | list * 10 ** 9 }}",
    "{{ [1] | batch(10 ** 9, 'x') | list }}",
    "{{ [1] | slice(10 ** 9) | list }}",
]


def test_there_are_fifty() -> None:
    assert len(set(ENDLESS + HUGE)) >= 50 + 20


@pytest.mark.parametrize("template", [*ENDLESS, *HUGE], ids=lambda template: template[:40])
def test_it_is_stopped_in_time(template: str, quick: Sandbox) -> None:
    quick.render("x", {})  # the process is there
    start = time.monotonic()
    with pytest.raises(TemplateError):
        quick.render(template, CONTEXT)
    assert time.monotonic() - start < LONGEST_STOP
    assert quick.render("{{ x }}", {"x": "well"}) == "well"


def test_output_is_limited_by_what_came_in(sandbox: Sandbox) -> None:
    template = "{% for i in range(n) %}{{ text }}{% endfor %}"
    text = "a" * 1000
    limit = 4 * (len(template) + len(f'{{"n": 64, "text": "{text}"}}')) + (64 << 10)
    assert len(sandbox.render(template, {"n": limit // 1000, "text": text})) == limit // 1000 * 1000
    with pytest.raises(TemplateError, match="limit of memory, depth or length"):
        sandbox.render(template, {"n": limit // 1000 + 1, "text": text})


# The process.


def test_the_process_is_kept_and_can_do_little() -> None:
    with Sandbox() as sandbox:
        before = sandbox.pid
        assert before is None, "it starts when first needed"
        sandbox.render("x", {})
        pid = sandbox.pid
        assert pid is not None
        for _ in range(3):
            sandbox.render("y", {})
        assert sandbox.pid == pid
        assert resource.prlimit(pid, resource.RLIMIT_AS)[0] <= (256 << 20) + 4096
        for limit in (
            resource.RLIMIT_NOFILE,
            resource.RLIMIT_NPROC,
            resource.RLIMIT_FSIZE,
            resource.RLIMIT_CORE,
        ):
            assert resource.prlimit(pid, limit) == (0, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_killed_process_is_replaced() -> None:
    with Sandbox() as sandbox:
        for _ in range(5):
            assert sandbox.render("{{ x }}", {"x": 1}) == "1"
            assert sandbox.pid is not None
            os.kill(sandbox.pid, signal.SIGKILL)


def test_a_process_killed_at_work_is_replaced() -> None:
    slow = "{% for i in range(10) %}{% for j in range(100000) %}{% endfor %}{% endfor %}done"
    with Sandbox(seconds=20) as sandbox:
        sandbox.render("x", {})
        assert sandbox.pid is not None
        killer = threading.Timer(0.05, os.kill, (sandbox.pid, signal.SIGKILL))
        killer.start()
        assert sandbox.render(slow, {}) == "done"
        killer.join()


def test_no_secret_of_the_environment_gets_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with Sandbox() as sandbox:
        sandbox.render("x", {})
        environment = Path(f"/proc/{sandbox.pid}/environ").read_bytes()
    assert b"hf_secret" not in environment
    assert not {b"HOME", b"PATH", b"USER"} & {item.partition(b"=")[0] for item in environment.split(b"\0")}


def test_threads_share_a_sandbox() -> None:
    failures: list[object] = []

    def work(sandbox: Sandbox, number: int) -> None:
        for i in range(40):
            text = f"{number} {i} " + "x" * number * 1000
            if (i + number) % 13 == 0:
                with pytest.raises(TemplateError):
                    sandbox.render("{{ 'a' * 10 ** 9 }}", {})
            got = sandbox.render("{{ text }}", {"text": text})
            if got != text:
                failures.append((number, i, got))

    with Sandbox(seconds=5) as sandbox:
        threads = [threading.Thread(target=work, args=(sandbox, number)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures


def test_ctrl_c_gets_through_and_leaves_a_working_sandbox() -> None:
    with Sandbox(seconds=20) as sandbox:
        sandbox.render("x", {})
        start = time.monotonic()
        # The system may hand the signal to any thread; Python answers it in the main one.
        timer = threading.Timer(0.1, signal.raise_signal, (signal.SIGINT,))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            sandbox.render(ENDLESS[0], {})
        assert time.monotonic() - start < 10
        timer.join()
        assert sandbox.render("{{ x }}", {"x": "the next answer"}) == "the next answer"


@pytest.mark.filterwarnings(
    "ignore:.*fork:DeprecationWarning"
)  # of a process with threads, from Python 3.12 on
def test_a_fork_has_its_own_process() -> None:
    with Sandbox() as sandbox:
        sandbox.render("x", {})
        before = sandbox.pid
        child = os.fork()
        if child == 0:
            fine = sandbox.pid is None and sandbox.render("{{ 1 }}", {}) == "1" and sandbox.pid != before
            sandbox.close()
            os._exit(0 if fine else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert sandbox.render("{{ 2 }}", {}) == "2"
        assert sandbox.pid == before


LEAVES = """
import sys
from bestiary.text.jinja import shared
shared.render("x", {})
print(shared.pid, flush=True)
"""


@pytest.mark.parametrize("end", ["", "import os; os.kill(os.getpid(), 9)"])
def test_it_ends_with_the_program(end: str) -> None:
    ran = subprocess.run([sys.executable, "-c", LEAVES + end], capture_output=True, text=True, check=False)
    assert ran.stderr == ""
    pid = int(ran.stdout)
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("the process is still there after 5 s")


def test_a_program_without_an_interpreter_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with Sandbox() as sandbox:
        for missing in ("", "/nowhere/python"):
            monkeypatch.setattr(sys, "executable", missing)
            with pytest.raises(TemplateError, match="no process can be started"):
                sandbox.render("x", {})
        monkeypatch.setattr(sys, "executable", "/bin/false")
        with pytest.raises(TemplateError, match="/bin/false did not start"):
            sandbox.render("x", {})
