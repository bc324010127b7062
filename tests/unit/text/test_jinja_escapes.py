"""Ways out of a Jinja sandbox that attackers have used or tried: none reads, calls or prints an object."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bestiary.errors import RequestError, TemplateError
from bestiary.text import jinja
from bestiary.text.jinja import Sandbox

RUN = "os.popen('id').read()"
BUILTINS = "__globals__['__builtins__']"

# From a value to its class and to all that Python has loaded.
CLASSES = [
    "''.__class__",
    "''['__class__']",
    "''|attr('__class__')",
    "''.__class__.__mro__",
    "''.__class__.__mro__[1].__subclasses__()",
    "''.__class__.__base__.__subclasses__()",
    "[].__class__.__base__.__subclasses__()[132].__init__.__globals__['popen']('id').read()",
    "{}.__class__.__bases__[0].__subclasses__()",
    "().__class__.__bases__[0].__subclasses__()[40]('/etc/passwd').read()",
    "(1).__class__.__mro__",
    "1.0.__class__",
    "true.__class__.__mro__[2]",
    "none.__class__.__class__",
    "messages.__class__",
    "messages.__init__.__globals__",
    "messages[0].__class__.__init__.__globals__",
    "bos_token.__class__.__mro__[-1].__subclasses__()",
    "''.__doc__",
    "''.__dir__()",
    "''.__init_subclass__",
    "''.__reduce_ex__(2)",
    "''.__getattribute__('__class__')",
    "''.__format__.__self__.__class__",
    "''.__add__.__objclass__",
    "[].append.__self__.__class__",
    "''.join.__class__",
    "''.join.__self__",
    "''.upper.__call__",
    "{}.get.__qualname__",
    "''.mro()",
    "''.__class__.mro()",
    "''['__cla' ~ 'ss__']",
    "''['__cla''ss__']",
    "''[['__class', '__']|join]",
    "''['__ssalc__'[::-1]]",
    "''['\\x5f\\x5fclass\\x5f\\x5f']",
    "''['\\u005f\\u005fclass\\u005f\\u005f']",
    "''|attr('\\x5f\\x5fclass\\x5f\\x5f')",
    "''|attr(['__', 'class', '__']|join)",
    "''|attr('__%s__'|format('class'))",
    "''|attr(request.args.x)",
    "''[request.args.x]",
    "''|attr('__class__')|attr('__mro__')|attr('__getitem__')(1)",
    "['']|map('attr', '__class__')|list",
    "['']|map(attribute='__class__')|list",
    "['']|map(attribute='__class__.__mro__')|first",
    "['']|selectattr('__class__')|list",
    "['']|rejectattr('__class__', 'none')|list",
    "['']|groupby('__class__')|list",
    "['']|groupby(attribute='__class__.__name__')|list",
    "['']|sort(attribute='__class__.__name__')",
    "['']|sum(attribute='__class__.__name__', start='')",
    "['']|unique(attribute='__class__')|list",
    "['']|max(attribute='__class__.__name__')",
    "['']|min(attribute='__class__.__mro__')",
    "['']|join(',', attribute='__class__')",
    "{'a': 1}|dictsort(by='__class__')",
    "['']|map('attr', 'upper')|map('attr', '__self__')|list",
]
# From what Jinja and its hosts put into a template's world.
GLOBALS = [
    f"cycler.__init__.{BUILTINS}",
    f"cycler.__init__.__globals__.{RUN}",
    f"joiner.__init__.__globals__.{RUN}",
    f"namespace.__init__.__globals__.{RUN}",
    f"lipsum.__globals__.{RUN}",
    "lipsum.__globals__['os'].popen('id').read()",
    "lipsum|attr('__globals__')",
    "lipsum()",
    "cycler.next",
    "cycler('a').__init__.__globals__",
    "cycler('a').__class__",
    "cycler('a').next.__globals__",
    "cycler('a').next.__func__.__code__",
    "joiner(',').__call__.__globals__",
    "joiner(',').__init__.__func__.__globals__",
    "namespace(x=1).__class__.__init__.__globals__",
    "namespace(__class__=1)",
    "namespace(_x=1)",
    "namespace({'__init__': 1})",
    "namespace(**{'__class__': ''})",
    "range.__class__",
    "range.__globals__",
    "range(3).__class__",
    "range(3).__reduce__()",
    "dict.__class__.__base__",
    "dict.__call__.__globals__",
    "dict.fromkeys.__func__",
    "dict.__mro__",
    "raise_exception.__globals__",
    "raise_exception.__code__.co_consts",
    "raise_exception.__init__",
    "strftime_now.__globals__",
    "strftime_now.now",
    "strftime_now.__class__",
    "strftime_now.__self__",
    "self.__init__.__globals__",
    f"self.__init__.{BUILTINS}.__import__('os').popen('id').read()",
    "self._TemplateReference__context",
    "self._TemplateReference__context.cycler.__init__.__globals__.os",
    "self.__dict__",
    "self",
    "config",
    "config.items()",
    "config.__class__.__init__.__globals__['os']",
    "request",
    "request.application.__globals__",
    "request|attr('application')|attr('\\x5f\\x5fglobals\\x5f\\x5f')",
    "request['__cl''ass__']",
    "url_for.__globals__['current_app'].config",
    "get_flashed_messages.__globals__",
    "g.pop.__globals__",
    "session",
    "handler.settings",
    "settings.SECRET_KEY",
    "app.__init__.__globals__",
    "environment",
    "context",
    "_",
    "__builtins__",
    "__import__('os')",
    "open('/etc/passwd').read()",
    "exec('1')",
    "eval('1')",
    "getattr('', '__class__')",
    "globals()",
    "vars()",
    "type('')",
    "os.environ",
    "cycler",
    "joiner",
    "namespace",
    "range",
    "dict",
    "raise_exception",
    "strftime_now",
    "[cycler, range]",
    "{'a': raise_exception}",
    "''.upper",
    "''.upper.__func__",
    "[].append",
    "messages.append",
    "namespace(x=1)",
]
# str.format looks attributes up by itself.
FORMATS = [
    "'{0.__class__}'.format(1)",
    "'{0[__class__]}'.format(namespace(x=1))",
    "'{0.__class__.__mro__}'.format('')",
    "'{x.__class__}'.format(x=1)",
    "'{x.__class__.__init__.__globals__}'.format_map({'x': cycler('a')})",
    "'{0.__init__.__globals__}'.format(cycler)",
    "'{0.__self__.__class__}'.format(''.upper)",
    "'{:{0.__class__}}'.format(1)",
    "'{0!r:{1.__class__}}'.format('', 1)",
    "('{0.__cl' ~ 'ass__}').format(1)",
    "''|attr('format')|attr('__self__')",
    "('{0.__class__}'|attr('format'))(1)",
    "'{0.__class__}'['format'](1)",
    "'{x.__class__}'|attr('format_map')({'x': 1})",
    "['{0.__class__}']|map('format', 1)|list",
    "['{0.__class__}']|map(attribute='format')|map('attr', '__self__')|list",
    "(['{0.__class__}']|map(attribute='format')|first)(1)",
    "('{0.__class__}'.format|default)(1)",
    "'{0.__class__}'.format.__wrapped__(1)",
    "'{0.__class__}'.format.__globals__",
    "('{0.__class__}'|safe).format(1)",
    "('{0.__class__}'|e).format(1)",
    "('<b>'|safe).__class__.__base__",
    "('a'|safe).__html__.__globals__",
    "('a'|safe).escape.__func__",
]
# Statements.
BLOCKS = [
    "{% for c in [].__class__.__base__.__subclasses__() %}{{ c }}{% endfor %}",
    (
        "{% for c in ''.__class__.__mro__[1].__subclasses__() if c.__name__ == 'catch_warnings' %}"
        "{{ c()._module.__builtins__['__import__']('os').popen('id').read() }}{% endfor %}"
    ),
    "{% set x = ''.__class__ %}{{ x }}",
    "{% set c = cycler.__init__ %}{{ c.__globals__ }}",
    "{% set ns = namespace() %}{% set ns.__class__ = '' %}{{ ns }}",
    "{% set ns = namespace() %}{% set ns.__init__ = 1 %}{{ ns.__init__ }}",
    "{% set ns = namespace() %}{% set ns._x = 1 %}{{ ns._x }}",
    "{% macro m() %}{% endmacro %}{{ m }}",
    "{% macro m() %}{% endmacro %}{{ m.__init__.__globals__ }}",
    "{% macro m() %}{% endmacro %}{{ m._func.__globals__ }}",
    "{% macro m() %}{% endmacro %}{{ m._environment }}",
    "{% macro m() %}{{ caller.__class__ }}{% endmacro %}{% call m() %}{% endcall %}",
    "{% macro m() %}{{ varargs.__class__ }}{% endmacro %}{{ m(1) }}",
    "{% macro m() %}{{ kwargs.__class__ }}{% endmacro %}{{ m(x=1) }}",
    "{% for x in [1] %}{{ loop }}{% endfor %}",
    "{% for x in [1] %}{{ loop.__init__.__globals__ }}{% endfor %}",
    "{% for x in [1] %}{{ loop._undefined }}{% endfor %}",
    "{% for x in [1] %}{{ loop.__class__.__mro__ }}{% endfor %}",
    "{% for x in [1] %}{{ loop._iterable }}{% endfor %}",
    "{% include '/etc/passwd' %}",
    "{% include ['/etc/passwd', 'x'] ignore missing %}",
    "{% import 'os' as os %}{{ os }}",
    "{% from 'os' import popen %}{{ popen('id') }}",
    "{% extends '/etc/passwd' %}",
    "{% block a %}{{ self.a.__class__ }}{% endblock %}",
    "{% block a %}{{ super.__class__ }}{% endblock %}",
    "{% with x = ''.__class__ %}{{ x }}{% endwith %}",
    "{% filter attr('__class__') %}x{% endfilter %}",
    "{% if ''.__class__ %}yes{% endif %}",
    "{% set _ = messages.append(1) %}{{ messages }}",
    "{% set _ = messages[0].update({'role': 'system'}) %}{{ messages }}",
    "{% set _ = messages.clear() %}",
    "{% set _ = messages[0].pop('role') %}",
    "{% set _ = messages.sort() %}",
    "{% do messages.append(1) %}",
    "{% debug %}",
    "{% autoescape true %}{{ ''.__class__ }}{% endautoescape %}",
    "{% trans %}{{ ''.__class__ }}{% endtrans %}",
    "{% python %}import os{% endpython %}",
    "<% import os %>${os}#{7*7}<%= 7*7 %>",
    "{% set x = {}.__class__.__base__ %}{% set y = x.__subclasses__ %}{{ y() }}",
    "{{ ''.__class__ or 'harmless' }}",
    "{{ (''.__class__ is defined) and 1 }}",
    "{{ ''.__class__|default('x') }}",
    "{{ raise_exception(cycler.__init__.__globals__) }}",
    "{{ raise_exception(messages.__class__.__mro__) }}",
]
PAYLOADS = [*(f"{{{{ {expression} }}}}" for expression in (*CLASSES, *GLOBALS, *FORMATS)), *BLOCKS]
CONTEXT = {"messages": [{"role": "user", "content": "x"}], "bos_token": "<s>"}
# What an object looks like in print, and what the payloads are after.
CAUGHT = re.compile(
    r"<(class|function|module|built-in|bound|method|slot|type|generator|Template|Macro)| at 0x|uid=|root:"
)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as made:
        yield made


def test_there_are_enough() -> None:
    assert len(set(PAYLOADS)) >= 200


@pytest.mark.parametrize("payload", PAYLOADS)
def test_nothing_gets_out(payload: str, sandbox: Sandbox) -> None:
    try:
        text = sandbox.render(payload, CONTEXT)
    except (TemplateError, RequestError) as error:
        text = str(error)  # may name the attribute and the type: no address, and nothing of a value
    assert not CAUGHT.search(text), text
    assert len(text) < 200


@pytest.mark.parametrize("payload", [*(f"{{{{ {expression} }}}}" for expression in CLASSES), *BLOCKS[:9]])
def test_what_reads_an_attribute_is_refused(payload: str, sandbox: Sandbox) -> None:
    with pytest.raises(TemplateError):
        sandbox.render(payload, CONTEXT)


AUDIT = """
import json, sys, importlib.util
path, payloads, context = json.load(sys.stdin)
spec = importlib.util.spec_from_file_location("jinja_worker", path)
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)
seen, answers, on = [], [], True

def hook(event, args):
    # jinja2 makes Python code of a template, runs it, and puts the template's lines into tracebacks.
    jinja = ("<template>", "<unknown>")
    its_own = {
        "compile": lambda: args[1] in jinja,
        "exec": lambda: args[0].co_filename in jinja,
        "code.__new__": lambda: args[1] in jinja,
        "object.__getattr__": lambda: type(args[0]).__name__ in ("traceback", "frame", "code"),
    }
    if on and not its_own.get(event, lambda: False)():
        seen.append([event, repr(args)[:200]])

# The first use of everything.
request = {"template": "{{ a.b }}", "context": context, "now": [2024, 1, 1], "limit": 9999}
worker.answer(request)
sys.addaudithook(hook)
for payload in payloads:
    answers.append(worker.answer(request | {"template": payload}))
on = False
print(json.dumps([seen, answers]))
"""


def test_no_payload_opens_imports_or_starts_anything() -> None:
    """Where nothing is given up beforehand, so that what is tried would be seen, and would work."""
    worker = Path(jinja.__file__).with_name("jinja_worker.py")
    request = json.dumps([str(worker), PAYLOADS, CONTEXT])
    ran = subprocess.run(
        [sys.executable, "-I", "-c", AUDIT], input=request, capture_output=True, text=True, check=True
    )
    seen, answers = json.loads(ran.stdout)
    assert seen == [], seen
    assert len(answers) == len(PAYLOADS)
    refused = sum("error" in answer for answer in answers)
    assert refused > 0.8 * len(PAYLOADS)
