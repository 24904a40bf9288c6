"""From the text of a flag or a variable to a value, and from a value that may hold a password to text for people.

Each parser checks strictly: what Python would take (``1_000``, ``٣``, ``nan``) is no number here. It raises ValueError
without words; the `Text` that it belongs to knows what was wanted.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

MASK = "***"
BYTE_ORDER_MARK = "\ufeff"

_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_HOST = re.compile(r"[\w.~%:-]+")  # names, IPv4, and IPv6 as urlsplit gives it: without its brackets
_SCHEME = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*:")
_NEXT_URL = re.compile(rf";(?={_SCHEME.pattern}//)")  # a ";" in a password must not tear it
_LONGEST_NUMBER = 40

ENCODED = "user and password percent-encoded: %40 for @, %2F for /, %3F for ?, %23 for #, %5B for ["
_NO_HOST = {"stub", "memory", "unix"}


class Unfit(ValueError):
    """What is wrong with a value, in words that hold nothing of it: an error says them in place of what was wanted."""


@dataclass(frozen=True)
class Text:
    """How a kind of value is written: ``rate: Annotated[float, Text(...)]`` makes it that of a pydantic model's field.

    Args:
        parse: From text to value; raises ValueError when the text is not a right value.
        wanted: What a right value is, for help and errors.
        metavar: What the help shows for the value.
        mask: What is hidden when the value is shown: nothing, all of it, or the password in a URL.
    """

    parse: Callable[[str], Any]
    wanted: str
    metavar: str = "TEXT"
    mask: Literal["", "all", "url"] = ""

    def optional(self, nothing: object = None) -> Text:
        """Let the value be left out.

        Args:
            nothing: What no text is then.

        Returns:
            The same otherwise.
        """
        return replace(self, parse=lambda text: self.parse(text) if text.strip() else nothing)

    def shown(self, text: str) -> str:
        """Mask what is secret in a value.

        Args:
            text: The value as text.

        Returns:
            The text that may be printed.
        """
        if self.mask == "all" and text:
            return MASK
        return mask_urls(text) if self.mask == "url" else text

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._read, handler(source))

    def _read(self, value: object) -> object:
        """Read the field's value; what is no text, as a default, is as good as the text that it would be given by."""
        try:
            return self.parse(as_text(value))
        except Unfit:
            raise
        except ValueError:  # of which a library's words may have a part of a password in them
            raise ValueError(self.wanted) from None


def _require(is_right: object) -> None:
    if not is_right:
        raise ValueError


def number(low: float, high: float = float("inf"), what: str = "a number", metavar: str = "N") -> Text:
    """Say how a number is written.

    Args:
        low: The least that is right.
        high: The most that is right.
        what: What it is called.
        metavar: What the help shows for it.

    Returns:
        Text that is a float: ``2``, ``0.5``, ``1e3``.
    """
    least, most = (f"{each:f}".rstrip("0").rstrip(".") for each in (low, high))
    wanted = f"{what} from {least}" + (f" to {most}" if high < float("inf") else "")
    return Text(partial(_within, float, _NUMBER, low, high), wanted, metavar)


def integer(low: int, high: int, what: str = "a whole number", note: str = "", metavar: str = "N") -> Text:
    """Say how a whole number is written.

    Args:
        low: The least that is right.
        high: The most that is right.
        what: What it is called.
        note: What there is to say of one of them.
        metavar: What the help shows for it.

    Returns:
        Text that is an int.
    """
    return Text(partial(_within, int, _INTEGER, low, high), f"{what} from {low} to {high}{note}", metavar)


def _within(kind: Callable[[str], float], written: re.Pattern[str], low: float, high: float, text: str) -> float:
    text = text.strip()
    _require(len(text) <= _LONGEST_NUMBER and written.fullmatch(text))
    value = kind(text)
    _require(low <= value <= high and value < float("inf"))
    return value + 0  # no negative zero


def url(wanted: str, *schemes: str, several: bool = False) -> Text:
    """Say how a URL is written.

    Args:
        wanted: What a right one looks like.
        schemes: The schemes that are right.
        several: Whether there may be more than one, separated by ``;``.

    Returns:
        Text with a password that is masked. Among several, none may be that of the in-process broker.
    """

    def parse(text: str) -> str:
        text = text.strip()
        parts = [part.strip() for part in text.split(";")] if several else [text]
        for part in parts:
            split = split_url(part)
            _require(split.scheme in schemes and (split.scheme not in _NO_HOST or len(parts) == 1))
        return ";".join(parts)

    return Text(parse, wanted, "URL", "url")


def split_url(text: str) -> SplitResult:
    """Split a URL, strictly.

    Args:
        text: The URL.

    Returns:
        Its parts.

    Raises:
        ValueError: It is none: a character, host, port or path that cannot be right.
    """
    # urlsplit drops line breaks and tabs without a word, so that what is checked is not what is used.
    _require(text.isprintable() and not any(c.isspace() for c in text))
    rest = text.partition("://")[2]
    authority = re.split(r"[/?#]", rest)[0]
    _refuse_unencoded(text, authority, rest[len(authority) :])
    split = urlsplit(text)
    _require(split.port != 0)  # raises ValueError itself for what is not a number up to 65535
    _require(split.scheme in _NO_HOST or _HOST.fullmatch(split.hostname or ""))
    (split.hostname or "").encode("idna")  # a name that cannot be looked up: sockets raise UnicodeError at it
    _require(split.scheme != "unix" or split.path not in ("", "/"))
    _require(split.scheme not in ("redis", "rediss") or re.fullmatch(r"/?[0-9]{0,4}", split.path))
    return split


def _refuse_unencoded(text: str, authority: str, tail: str) -> None:
    """Refuse a password that ends the URL's authority where it was not meant to: another host would be asked."""
    userinfo, at, host = authority.rpartition("@")
    torn = "@" in tail
    if text.lower().startswith("http"):  # where an @ behind the host may be one
        is_in_path = "@" in re.split("[?#]", tail)[0]
        torn &= not at and ":" in host and (is_in_path or not re.search(r"(:[0-9]*|\])$", host))
    if torn or set("[]") & set(userinfo):
        raise Unfit(ENCODED)


def wrapping(text: str) -> str:
    """Say what is around a value that came out of a file.

    Args:
        text: The value.

    Returns:
        What was wanted, where it is in quotes or begins with a byte order mark; else nothing.
    """
    text = text.strip()
    if text.startswith(BYTE_ORDER_MARK):
        return "it without the byte order mark (U+FEFF) before it"
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return "it without the quotes around it, which an env file may hand on as parts of it"
    return ""


def _bare(text: str) -> str:
    _require(not wrapping(text))
    return text.strip()


def names(text: str) -> tuple[str, ...]:
    """Read names separated by commas.

    Args:
        text: The names; empty ones and repeats are left out.

    Returns:
        The names in their order, perhaps none.

    Raises:
        ValueError: There are quotes around them.
    """
    return tuple(dict.fromkeys(name for part in _bare(text).split(",") if (name := part.strip())))


def some_names(text: str) -> tuple[str, ...]:
    """Read names separated by commas, at least one.

    Args:
        text: The names.

    Returns:
        The names in their order.

    Raises:
        ValueError: There is none.
    """
    found = names(text)
    _require(found)
    return found


def word(text: str) -> str:
    """Read one word.

    Args:
        text: A word, perhaps with spaces around it.

    Returns:
        The word.

    Raises:
        ValueError: It is empty, in quotes, or has a space or an unprintable character in it.
    """
    text = _bare(text)
    _require(text and text.isprintable() and " " not in text)
    return text


def one_of(*words: str, metavar: str) -> Text:
    """Say how one of some words is written.

    Args:
        words: The words that are right.
        metavar: What the help shows for it.

    Returns:
        Text in which upper case is as good as lower case.
    """

    return Text(lambda text: words[words.index(text.strip().lower())], " or ".join(words), metavar)


def secret(pattern: str = "[ -~]*", wanted: str = "printable ASCII characters", metavar: str = "SECRET") -> Text:
    """Say how a secret is written that is shared with a program in any language; it is kept as it is, never shown.

    Args:
        pattern: A regular expression that all of it matches.
        wanted: What that is in words.
        metavar: What the help shows for it.

    Returns:
        Text that is a str, with the spaces around it.
    """

    def parse(text: str) -> str:
        _require(re.fullmatch(pattern, text))
        return text

    return Text(parse, wanted, metavar, mask="all")


def path(text: str) -> Path:
    """Read a file name.

    Args:
        text: The name; ``~`` is the home folder.

    Returns:
        The path.

    Raises:
        ValueError: It is empty, a folder's or in quotes, has a NUL in it, or names the home of a user who is not there.
    """
    text = _bare(text)
    _require(text and "\0" not in text)
    try:
        found = Path(text).expanduser()
    except RuntimeError:
        raise ValueError from None
    _require(found.name)
    return found


def links(text: str) -> tuple[str, ...]:
    """Read links for people, ``name=URL`` separated by commas.

    Args:
        text: The links, perhaps none.

    Returns:
        ``name=URL`` each, in their order.

    Raises:
        ValueError: A name is missing, or a URL is not one for a browser.
    """
    parse = url("", "http", "https").parse
    found = []
    for part in names(text):
        name, equals, address = part.partition("=")
        _require(equals and name.strip() and name.isprintable())
        found.append(f"{name.strip()}={parse(address)}")
    return tuple(found)


def mask_urls(text: str) -> str:
    """Hide the passwords of one or several URLs.

    Args:
        text: URLs separated by ``;``, or text that failed to be that.

    Returns:
        The text with each password masked; rather too much is masked than too little.
    """
    return ";".join(mask_url(part) for part in _NEXT_URL.split(text))


def mask_url(text: str) -> str:
    """Hide the password of a URL, and the values of its query, where some programs take one too.

    Args:
        text: Any URL, or text that failed to be one.

    Returns:
        The URL with ``***`` in place of what may be secret.
    """
    before, mark, query = text.partition("?")
    hidden = mark and f"?{MASK}"
    scheme, slashes, place = before.partition("//")
    if "@" in query and (not slashes or set(":@") & set(place)):  # a password has the ?, before the host
        return f"{scheme}//{place.partition(':')[0]}:{MASK}" if slashes else MASK
    head, at, host = before.rpartition("@")
    if at:
        scheme, slashes, userinfo = head.partition("//")
        if not slashes or not _SCHEME.fullmatch(scheme):
            return f"{MASK}@{host}{hidden}"
        user, colon, _ = userinfo.partition(":")
        return f"{scheme}//{user}{colon and ':' + MASK}@{host}{hidden}"
    host, colon, port = place.partition(":")
    if colon and "[" not in host and not re.match(r"[0-9]{1,5}([/#,]|$)", port):
        return f"{scheme}//{host}:{MASK}"  # a port that is none may be the password of a URL whose host was forgotten
    return before + hidden


def management_url_of(broker_url: str) -> str:
    """Guess where RabbitMQ's management API is.

    Args:
        broker_url: One or several AMQP URLs; the first one counts.

    Returns:
        The same host, user and password with port 15672, or nothing for the in-process broker.
    """
    split = urlsplit(broker_url.split(";")[0].strip())
    if split.scheme not in ("amqp", "amqps"):
        return ""
    user = quote(unquote("guest" if split.username is None else split.username), safe="")
    password = quote(unquote("guest" if split.password is None else split.password), safe="")
    host = f"[{split.hostname}]" if ":" in (split.hostname or "") else split.hostname
    return urlunsplit(("http", f"{user}:{password}@{host}:15672", "", "", ""))


def as_text(value: object) -> str:
    """Write a value of a setting as a person would give it.

    Args:
        value: The value.

    Returns:
        Its text; nothing for None.
    """
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


_PORT = integer(0, 65535, "a port", " (0 for a free one)", "PORT")

Port = Annotated[int, _PORT]
OptionalPort = Annotated[int | None, _PORT.optional()]
File = Annotated[Path, Text(path, "a file name", "FILE")]
