"""The fields of any pydantic model as settings: each is a variable, a flag and a line of help.

A value is taken from the flag, else from the variable, else from the field's default; one that may be a secret, also
from the file that ``<variable>_FILE`` names. How it is written is said by the `Text` of the field; without one it is
what pydantic makes of text.
"""

from __future__ import annotations

import errno
import os
import re
import select
import time
from codecs import BOM_UTF8
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self, TypeVar, get_args

from pydantic import BaseModel, SecretBytes, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from carpark.errors import ConfigurationError, InvalidSetting, SeveralMistakes
from carpark.settings.values import MASK, Text, as_text, wrapping
from carpark.settings.values import path as parse_path

PREFIX = "CARPARK_"

_LINK = re.compile(r"CARPARK_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?)")
_LINKED = re.compile(r"(tcp|udp|sctp)://[^/]+:([0-9]+)")

_PLAIN = Text(str, "", mask="url")
_SECRET = Text(str, "", mask="all")

_SAID = {"missing": "a value", "extra_forbidden": "a setting that there is"}

_LONGEST = 64 * 1024
_READ_SECONDS = 5.0

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Option:
    """A field as users meet it.

    Args:
        name: The field.
        variable: The environment variable.
        help: What it means.
        default: The default as text.
        text: How its value is written.
    """

    name: str
    variable: str
    help: str
    default: str
    text: Text

    @property
    def flag(self) -> str:
        """The command line flag."""
        return "--" + self.argument.replace("_", "-")

    @property
    def file_variable(self) -> str:
        """The variable that names a file with the value, where that may hold a secret; else empty."""
        return f"{self.variable}_FILE" if self.text.mask and self.text is not _PLAIN else ""

    @property
    def argument(self) -> str:
        """What the flag is called among the arguments of a command."""
        return self.variable.removeprefix(PREFIX).lower()


@cache
def options_of(model: type[BaseModel], prefix: str = PREFIX) -> Mapping[str, Option]:
    """Look at the fields of a model.

    Args:
        model: The model.
        prefix: What its variables begin with.

    Returns:
        Field to option, in the model's order.
    """
    return {
        name: Option(
            name,
            prefix + name.upper(),
            field.description or "",
            "" if field.default is PydanticUndefined else as_text(field.default),
            next((each for each in field.metadata if isinstance(each, Text)), _plain(field)),
        )
        for name, field in model.model_fields.items()
    }


def _plain(field: FieldInfo) -> Text:
    """Say how a field is written that does not say it itself; pydantic's secrets are secrets here, too."""
    kinds = (field.annotation, *get_args(field.annotation))
    return _SECRET if SecretStr in kinds or SecretBytes in kinds else _PLAIN


Texts = Mapping[str, str | InvalidSetting]
"""Field to its text, or to what is wrong with the file that should have it."""


def is_service_link(name: str, environ: Mapping[str, str]) -> bool:
    """Tell whether Kubernetes has set a variable, as it does in each pod for a service called ``carpark-writer``.

    Args:
        name: The variable: ``CARPARK_WRITER_SERVICE_HOST``, or ``CARPARK_WRITER_PORT`` where that is an address, which
            another one repeats.
        environ: All variables.

    Returns:
        Whether nobody else means anything by it.
    """
    linked = _LINKED.fullmatch(environ.get(name, ""))
    repeated = f"{name}_{linked[2]}_{linked[1].upper()}" if linked else ""
    return bool(_LINK.fullmatch(name)) or (bool(repeated) and environ.get(repeated) == environ[name])


class OfFlag(str):
    """The text of a flag: it counts though it is empty, and an error calls it by the flag.

    Args:
        text: The text.
        flag: The flag, if that is known.
    """

    flag: str

    def __new__(cls, text: str, flag: str = "") -> Self:
        """Make one."""
        made = super().__new__(cls, text)
        made.flag = flag
        return made


class OfFile(str):
    """The text of a file: of a wrong one nothing is shown, as it may be another secret than was wanted."""

    __slots__ = ()


def with_flags(environ: Mapping[str, str], flags: Mapping[str, str], options: Iterable[Option]) -> dict[str, str]:
    """Write flags down as variables.

    Args:
        environ: The variables.
        flags: Argument to the text given on the command line.
        options: What the flags may be of.

    Returns:
        The variables with these, and without those that name files for the same settings.
    """
    files = {option.file_variable for option in options if option.argument in flags}
    kept = {name: text for name, text in environ.items() if name not in files}
    given = {name: text if isinstance(text, OfFlag) else OfFlag(text) for name, text in flags.items()}
    return {**kept, **{PREFIX + name.upper(): text for name, text in given.items()}}


def given_texts(model: type[BaseModel], environ: Mapping[str, str], prefix: str = PREFIX) -> Texts:
    """Find out what is given.

    Args:
        model: The model.
        environ: The variables, flags among them. An empty one counts as not set, unless it is a flag's.
        prefix: What the model's variables begin with.

    Returns:
        Field to text, or to what is wrong with the file that has it; without those that are left to their defaults.
    """
    options = options_of(model, prefix)
    variables = {option.variable for option in options.values()}
    # Compared as bytes: in an encoding that is not UTF-8 the mark has other letters, or none.
    marked = {
        os.fsdecode(name.removeprefix(BOM_UTF8)) for name in map(os.fsencode, environ) if name.startswith(BOM_UTF8)
    }
    found: dict[str, str | InvalidSetting] = {}
    for name, option in options.items():
        text = "" if is_service_link(option.variable, environ) else environ.get(option.variable, "")
        file = option.file_variable
        path = "" if file in variables else environ.get(file, "")  # a field of that name is meant by it
        if option.variable in marked:
            wanted = "the env file without the byte order mark (U+FEFF), which became a part of this name"
            found[name] = InvalidSetting(option.variable, MASK, wanted)
        elif path and text:
            found[name] = InvalidSetting(file, path, f"that or {option.variable}, not both")
        elif path:
            found[name] = _in(file, path)
        elif text or isinstance(text, OfFlag):
            found[name] = text
    return found


def _in(variable: str, path: str) -> str | InvalidSetting:
    try:
        text = _bytes_in(parse_path(path)).decode("utf-8-sig").rstrip("\r\n")
    except OSError as error:
        return InvalidSetting(variable, path, f"a file that can be read ({(error.strerror or str(error)).lower()})")
    except ValueError:
        return InvalidSetting(variable, path, "a file of UTF-8 text")
    if not text.strip() or len(text) > _LONGEST:
        said = "too long" if text.strip() else "empty"
        return InvalidSetting(variable, path, f"a file that has the value; it is {said}")
    return OfFile(text)


def _bytes_in(path: Path) -> bytes:
    """Read a file, a pipe too; one that nobody writes to, or ends, is not waited for without end."""
    found, deadline = b"", time.monotonic() + _READ_SECONDS
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        there = select.poll()
        there.register(file, select.POLLIN)
        while len(found) <= _LONGEST:
            if not there.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError(errno.ETIMEDOUT, f"nobody has written it to its end within {_READ_SECONDS:g} s")
            part = os.read(file, _LONGEST + 1 - len(found))
            if not part:
                break
            found += part
    finally:
        os.close(file)
    return found


def read(model: type[M], environ: Mapping[str, str], prefix: str = PREFIX) -> M:
    """Make a model of what is given.

    Args:
        model: The model.
        environ: The variables, flags among them.
        prefix: What the model's variables begin with.

    Returns:
        The model with its values.

    Raises:
        ConfigurationError: A value is wrong, or two do not fit each other; it holds all that is wrong.
    """
    made, wrong = _made(model, given_texts(model, environ, prefix), prefix)
    if made is None:
        raise together(wrong.values())
    return made


def read_right(model: type[M], environ: Mapping[str, str]) -> tuple[M, dict[str, InvalidSetting]]:
    """Make a model of what is right in what is given.

    Args:
        model: The model, in which all fields have defaults.
        environ: The variables, flags among them.

    Returns:
        The model, with the default of what is wrong, and field to what is wrong with it.
    """
    texts = given_texts(model, environ)
    made, wrong = _made(model, texts)
    if made is None:  # what is left may not fit the default of what was taken out
        left = {name: text for name, text in texts.items() if name not in wrong}
        made, _ = _made(model, {name: text for name, text in left.items() if not _made(model, {name: text})[1]})
    return made or model(), wrong


def _made(model: type[M], texts: Texts, prefix: str = PREFIX) -> tuple[M | None, dict[str, InvalidSetting]]:
    """Make a model of text, or find out which fields are wrong; ``*`` is a rule between several."""
    wrong = {name: text for name, text in texts.items() if isinstance(text, InvalidSetting)}
    given = {name: text for name, text in texts.items() if isinstance(text, str)}
    details: list[Any] = []
    try:
        made = model.model_validate(given)
        if not wrong:
            return made, {}
    except ValidationError as error:
        details = error.errors()
    for each in details:
        name = str(each["loc"][0]) if each["loc"] else "*"
        if name in wrong:
            continue
        option = options_of(model, prefix).get(name) or Option(name, prefix + name.upper(), "", "", _PLAIN)
        words = str(each["ctx"]["error"]) if each["type"] == "value_error" else ""  # of a Text, or of a rule of ours
        said = _SAID.get(each["type"]) or each["msg"].removeprefix("Input should be ")
        text = given.get(name, option.default)
        wanted = wrapping(text) or words or option.text.wanted or said
        called, value = option.variable, option.text.shown(text)
        if isinstance(text, OfFile):
            value, wanted = MASK, f"{wanted}, in the file that {option.file_variable} names"
        elif isinstance(text, OfFlag) and text.flag:
            called = f"{text.flag} ({option.variable})"
        wrong[name] = InvalidSetting(called, value, wanted)
    return None, wrong


def together(found: Iterable[ConfigurationError]) -> ConfigurationError:
    """Make one error of all that is wrong.

    Args:
        found: What that is.

    Returns:
        The only one, or all of them; what two say in the same words, once.
    """
    once = list({str(each): each for each in found}.values())
    return once[0] if len(once) == 1 else SeveralMistakes(once)


def shown(settings: BaseModel, prefix: str = PREFIX) -> dict[str, str]:
    """Give every value as text that may be printed.

    Args:
        settings: A model with its values.
        prefix: What its variables begin with.

    Returns:
        Variable to value, secrets masked.
    """
    options = options_of(type(settings), prefix).values()
    return {each.variable: each.text.shown(as_text(getattr(settings, each.name))) for each in options}
