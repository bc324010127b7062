"""The child process of `jinja.Sandbox`, in which templates run that nobody trusts. A script, never imported.

It imports nothing but jinja2 and the standard library, so it is ready in about 60 ms, and then gives up what
a template has no use for: opening files, starting processes, memory. Requests come on standard input, answers
go to standard output, each a 4-byte length and UTF-8 JSON:

    request  {"template": str, "context": {name: value}, "now": [year, ..., microsecond], "limit": characters}
    answer   {"text": str}   or   {"kind": "raised|refused|syntax|limit|failed", "error": str}

The template language is the one that transformers gives to chat templates (utils/chat_template_utils.py
there): jinja2's immutable sandbox with trimmed blocks and loop controls, a `tojson` that leaves non-ASCII
alone, `raise_exception`, `strftime_now`, `{% generation %}` blocks. `Environment` narrows it further, to
plain data.
"""

from __future__ import annotations

import codecs
import contextlib
import datetime
import functools
import json
import math
import os
import pprint  # noqa: F401  jinja2 imports these two when a filter first needs them; by then nothing can be opened
import random
import resource
import signal
import sys
import textwrap  # noqa: F401
import time
from collections.abc import Mapping
from typing import Any, NoReturn

import jinja2.debug
from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError, TemplateSyntaxError
from jinja2.ext import Extension
from jinja2.filters import do_attr
from jinja2.parser import Parser
from jinja2.runtime import LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner
from jinja2.utils import Namespace as JinjaNamespace

# Python finds a codec when first asked for it; jinja2 reads a template's string literals with these two.
codecs.lookup("ascii"), codecs.lookup("unicode-escape")

HEADER = 4
MESSAGE_LIMIT = 2000


class RaisedError(TemplateError):
    """The template called raise_exception: the conversation does not fit it."""


class OutputLimitError(Exception):
    """The rendered text grew past the request's limit."""


# What templates may use besides jinja2's own tags, tests and filters.


class GenerationBlock(Extension):
    """`{% generation %}...{% endgeneration %}`, which marks assistant text: its body, scoped."""

    tags = {"generation"}  # noqa: RUF012  as jinja2 declares it

    def parse(self, parser: Parser) -> nodes.Node:
        """Return the block's body as a scope of its own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class Namespace(JinjaNamespace):
    """`namespace` for templates; attributes that Python itself would look up cannot be planted."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # so that an attribute may be called self
        attributes = dict(*args[1:], **kwargs)
        for name in attributes:
            Namespace._check(name)
        JinjaNamespace.__init__(args[0], attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        Namespace._check(name)
        JinjaNamespace.__setitem__(self, name, value)

    @staticmethod
    def _check(name: object) -> None:
        if str(name).startswith("_"):
            raise SecurityError(f"a namespace keeps no attribute named {str(name)[:100]!r}")


class Clock:
    """`strftime_now` for templates: the request's moment, so that time stands still while one is answered."""

    now = datetime.datetime.min

    def __call__(self, form: str) -> str:
        return self.now.strftime(form)


class Dict:
    """`dict` for templates: makes dictionaries, and is not the class itself."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        """Make a dictionary of these keys with one value."""
        return dict.fromkeys(*args)


def raise_exception(message: object) -> NoReturn:
    """Refuse the conversation, in the template's own words."""
    raise RaisedError(str(message))


def tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Write a value as JSON: jinja2's own filter would escape <, > and & for HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


# The sandbox.

PLAIN = (str, int, float, bool, type(None), list, tuple, dict, Undefined)
LIVE = (LoopContext, Macro, Cycler, Joiner, Namespace, Dict)


class Environment(ImmutableSandboxedEnvironment):
    """jinja2's sandbox, narrowed from "all but what is known to be dangerous" to "plain data only".

    Attributes are read from strings, numbers, lists, dictionaries and jinja2's own loop and macro objects;
    calls go to their methods, to macros and to the functions given here; only plain data is printed, so that
    no object's repr, and no address, gets into a prompt. Nothing is loaded: include, import and extends have
    no loader.
    """

    functions: tuple[object, ...] = ()

    def unsafe_undefined(self, obj: Any, attribute: str) -> NoReturn:
        """Refuse at once what jinja2 would refuse only if it were used further."""
        raise SecurityError(f"attribute {attribute[:100]!r} of a {type(obj).__name__}")

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Look up obj.attribute, or else obj[attribute]; what is not allowed is not even touched."""
        return super().getattr(obj, attribute) if readable(obj, attribute) else self.item(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Look up obj[argument], or else obj.argument."""
        if isinstance(argument, str) and not readable(obj, argument):
            return self.item(obj, argument)
        return super().getitem(obj, argument)

    def item(self, obj: Any, name: str) -> Any:
        """Look up a name that only a dictionary may have."""
        return obj[name] if isinstance(obj, dict) and name in obj else self.unsafe_undefined(obj, name)

    def is_safe_callable(self, obj: Any) -> bool:
        """Tell whether a template may call this."""
        # The sandbox wraps str.format, and keeps the method as __wrapped__.
        method = obj if isinstance(obj, LIVE) else getattr(obj, "__wrapped__", obj)
        owner = method if isinstance(obj, LIVE) else getattr(method, "__self__", None)
        known = any(method is function for function in self.functions)
        return known or (owner is not None and isinstance(owner, PLAIN + LIVE))


def readable(obj: object, attribute: str) -> bool:
    """Tell whether a template may read this attribute."""
    return isinstance(obj, PLAIN + LIVE) and not attribute.startswith("_")


@jinja2.pass_environment
def attr(env: Environment, obj: object, name: object) -> object:
    """Look up an attribute, and no item: the filter of this name."""
    return do_attr(env, obj, str(name)) if readable(obj, str(name)) else env.unsafe_undefined(obj, str(name))


def printable(value: object) -> object:
    """Pass plain data on to the output, and refuse anything else."""
    inner: tuple[object, ...] = ()
    if isinstance(value, Mapping):
        inner = (*value.keys(), *value.values())
    elif isinstance(value, list | tuple):
        inner = tuple(value)
    elif not isinstance(value, PLAIN):
        raise SecurityError(
            f"a template prints text, numbers, lists and dictionaries, not a {type(value).__name__}"
        )
    for item in inner:
        printable(item)
    return value


def environment() -> Environment:
    """Make the environment that every template is compiled in."""
    env = Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[GenerationBlock, "jinja2.ext.loopcontrols"],
        finalize=printable,
    )
    env.filters |= {"tojson": tojson, "attr": attr}
    del env.globals["lipsum"]  # random Latin; no chat template has a use for it
    env.globals |= {
        "dict": Dict(),
        "namespace": Namespace,
        "raise_exception": raise_exception,
        "strftime_now": CLOCK,
    }
    env.functions = (env.globals["range"], Cycler, Joiner, Namespace, raise_exception, CLOCK)
    return env


CLOCK = Clock()
ENVIRONMENT = environment()


@functools.lru_cache(maxsize=8)
def compiled(source: str) -> jinja2.Template:
    """Compile a template; its last eight forms are kept."""
    return ENVIRONMENT.from_string(source)


def render(template: jinja2.Template, context: dict[str, Any], limit: int) -> str:
    """Render, and stop as soon as the text is longer than the limit."""
    random.seed(0)  # the same request gives the same text
    chunks, length = [], 0
    for chunk in template.generate(context):
        length += len(chunk)
        if length > limit:
            raise OutputLimitError(f"the text grew past {limit} characters")
        chunks.append(chunk)
    return "".join(chunks)


# The process.


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Render what a request asks for, or say why not."""
    CLOCK.now = datetime.datetime(*request["now"])
    try:
        text = render(compiled(request["template"]), request["context"], request["limit"])
        text.encode()  # a template can spell half a surrogate pair
    except RaisedError as error:
        return failure("raised", error)
    except SecurityError as error:
        return failure("refused", error)
    except TemplateSyntaxError as error:
        return failure("syntax", error, f"line {error.lineno}: ")
    except (MemoryError, RecursionError, OverflowError, OutputLimitError) as error:
        return failure("limit", error)
    except Exception as error:  # noqa: BLE001  whatever a template manages to raise is an answer, not a crash
        return failure("failed", error, f"{type(error).__name__}: ")
    return {"text": text}


def failure(kind: str, error: Exception, prefix: str = "") -> dict[str, Any]:
    """Make the answer to a request that came to nothing."""
    text = (prefix + (str(error) or type(error).__name__))[:MESSAGE_LIMIT]
    return {"kind": kind, "error": text.encode(errors="replace").decode()}


def give_up() -> None:
    """Give up files and processes, for good."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process itself
    for name in ("NOFILE", "FSIZE", "CORE", "NPROC"):
        with contextlib.suppress(ValueError, OSError):  # not every system lets every limit be set
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (0, 0))


def allow(memory: int, seconds: int) -> None:
    """Allow this much address space, and this much more processor time, from here on."""
    spent = math.ceil(time.process_time())
    for name, value in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, spent + seconds)):
        _, hard = resource.getrlimit(name)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # macOS keeps no RLIMIT_AS; there the parent's clock still holds.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(name, (value, hard))


def receive(length: int) -> bytes:
    """Read exactly this many bytes, or none when the parent is gone."""
    data = bytearray()
    while len(data) < length:
        chunk = os.read(0, min(length - len(data), 1 << 20))
        if not chunk:
            return b""
        data += chunk
    return bytes(data)


def send(message: dict[str, Any]) -> None:
    """Write one message."""
    body = json.dumps(message, ensure_ascii=False).encode()
    data = memoryview(len(body).to_bytes(HEADER, "big") + body)
    while data:
        data = data[os.write(1, data) :]


def main(memory: int, seconds: int) -> None:
    """Answer requests until the parent is gone.

    Args:
        memory: bytes of address space for a small request; a large one gets 32 more for each of its own.
        seconds: of processor time for one request, which end a template whose parent died while it ran.
    """
    give_up()
    send({"text": "ready"})
    while header := receive(HEADER):
        body = receive(int.from_bytes(header, "big"))
        allow(memory + 32 * len(body), seconds)
        reply = answer(json.loads(body))
        send(reply)
        if reply.get("kind") == "limit":
            return  # memory may be in pieces: the next template gets a new process


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
