"""Every error a user can meet, as one tree.

    BestiaryError
    ├── ConfigError        config.json says something that is not computed, or lacks something   (ValueError)
    ├── CheckpointError    a weight file is damaged, hostile, incomplete, or does not fit the model
    ├── TokenizerError     a tokenizer file is damaged, unknown, or cannot encode what it was given
    ├── TemplateError      a chat template is refused, failed, or passed its limits
    ├── RequestError       a value in a call or a command is out of its bounds                  (ValueError)
    ├── HubError           a name is not known here, or a download failed
    ├── HostedError        the operator of a hosted model refused, failed or could not be reached
    └── KernelError        no kernel computes what was asked on this device

Each message names the thing, the value and the remedy, so the command line can print it as it is.
"""

from __future__ import annotations

from os import PathLike


class BestiaryError(Exception):
    """The root of the tree: catch this to catch everything the package raises on purpose."""


class ConfigError(BestiaryError, ValueError):
    """A config.json, or a key in it, that this package does not compute exactly as written."""


class CheckpointError(BestiaryError):
    """A weight file that cannot be trusted or does not fit.

    Names the file, the tensor and the byte where they are known, what was wrong, and what to do.
    """

    def __init__(
        self,
        reason: str,
        *,
        file: str | PathLike[str] | None = None,
        tensor: str | None = None,
        offset: int | None = None,
        remedy: str | None = None,
    ) -> None:
        self.reason, self.file, self.tensor, self.offset, self.remedy = reason, file, tensor, offset, remedy
        where = [] if file is None else [str(file)]
        if tensor is not None:
            # A name from a hostile file can be megabytes long or hold control characters.
            where.append(f"tensor {tensor[:200]!r}")
        if offset is not None:
            where.append(f"byte {offset}")
        text = f"{', '.join(where)}: {reason}" if where else reason
        super().__init__(f"{text}. {remedy}" if remedy else text)


class TokenizerError(BestiaryError):
    """A tokenizer that cannot be read, or text it cannot take."""


class TemplateError(BestiaryError):
    """A chat template that was refused, failed, or ran past its limits of time, memory or output."""


class RequestError(BestiaryError, ValueError):
    """A value in a call, a command or a request that is out of its bounds."""


class HubError(BestiaryError):
    """A model name that is not known here, or a download that failed."""


class HostedError(BestiaryError):
    """What the operator of a hosted model did not do. `model` is the name that was typed.

    code: the operator's own, or the HTTP status. wait: seconds until it may be asked again, where it said so.
    """

    def __init__(
        self,
        model: str,
        reason: str,
        *,
        code: str | None = None,
        remedy: str | None = None,
        wait: float | None = None,
    ) -> None:
        self.model, self.reason, self.code, self.remedy, self.wait = model, reason, code, remedy, wait
        text = f"{model}: {reason} ({code})" if code else f"{model}: {reason}"
        super().__init__(f"{text}. {remedy}" if remedy else text)


class KernelError(BestiaryError):
    """No kernel computes what was asked for on this device."""
