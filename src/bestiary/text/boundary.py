"""What goes into a tokenizer library, and what may come out: text that is text, and no error but ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import BestiaryError, TokenizerError

# A million tokens of English, several times the longest context here; the libraries need up to 600 MB and 10
# s for it.
MAX_CHARACTERS = 4_000_000
MAX_FILE = 256 << 20  # the largest published file, a 256,000-piece tokenizer.json, has 34 MB


def checked(text: str) -> str:
    """Return the text if a tokenizer can take it.

    Raises TokenizerError: half of a surrogate pair (which no UTF-8 spells), or more than MAX_CHARACTERS.
    """
    if len(text) > MAX_CHARACTERS:
        raise TokenizerError(
            f"the text has {len(text):,} characters; {MAX_CHARACTERS:,} are taken. Cut it into parts"
        )
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"character {error.start} of the text, U+{ord(text[error.start]):04X}, is half of a surrogate "
            "pair and no character. Decode the text's bytes with errors='replace'"
        ) from error
    return text


@contextmanager
def guarded(doing: str) -> Iterator[None]:
    """Make every failure of a library a TokenizerError that says what was being done.

    The libraries are written in Rust and C++: a failed check there comes as a PanicException, which derives
    from BaseException and which `except Exception` would let through to end the program.
    """
    try:
        yield
    except BestiaryError:
        raise
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise TokenizerError(f"{doing}: {reason[:300]}") from error
        raise  # KeyboardInterrupt, SystemExit


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Make every failure of reading a tokenizer's file a TokenizerError that names the file."""
    try:
        yield
    except TokenizerError as error:
        raise TokenizerError(f"{path}: {error}") from error
    except BestiaryError as error:  # of files.paths, which names the file
        raise TokenizerError(str(error)) from error
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{path}: byte {error.start} is no UTF-8. Download the file again") from error
