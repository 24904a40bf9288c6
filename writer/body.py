"""The body of a POST, value by value."""

from __future__ import annotations

import codecs
import json
import re
import sys
from collections.abc import Iterator
from typing import IO, Any

from carpark.domain.events import MAX_BODY_BYTES, load_json, no_constant
from carpark.errors import InvalidBody

_SPACES = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder(parse_constant=no_constant)


class Body:
    """Decodes the JSON of a summary, or of a list of them, without ever holding all of a long one.

    What a body means is known only when it is decoded, and decoded it may take sixty times as much memory. So of a long
    one there is only a window: one value of the list is made, looked at by the caller and gone before the next one is.
    """

    def __init__(self, stream: IO[bytes], window: int = MAX_BODY_BYTES) -> None:
        self.is_list = False
        self.size = 0
        self._stream, self._is_whole = stream, False
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._window, self._text, self._at, self._gone = window, "", 0, 0

    def __iter__(self) -> Iterator[Any]:
        """Decode the values of the list, or the one value that there is."""
        first = b""
        while len(first) <= self._window and (chunk := self._read()):
            first += chunk
        if self._is_whole:
            value = load_json(first, max_bytes=self._window)
            self.is_list = isinstance(value, list)
            yield from value if self.is_list else [value]
            return
        self._take(first)
        self.is_list = self._next() == "["
        if self.is_list and self._next(1) == "]":
            self._at += 1
        else:
            yield self._value()
            while self.is_list and self._next() == ",":
                self._next(1)
                yield self._value()
            if self.is_list and self._next() != "]":
                raise InvalidBody("the body is not JSON: wanted a comma or the end of the list")
            self._at += self.is_list
        if self._next():
            raise InvalidBody("the body is not JSON: there is something behind its end")

    def _read(self) -> bytes:
        chunk = self._stream.read(self._window + 1)
        self.size, self._is_whole = self.size + len(chunk), not chunk
        return chunk

    def _take(self, chunk: bytes) -> None:
        try:
            text = self._decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError:
            raise InvalidBody("the body is not UTF-8") from None
        self._gone += self._at
        self._text, self._at = self._text[self._at :] + text, 0

    def _next(self, skipped: int = 0) -> str:
        """Go over so many characters, and all spaces; give the character that is next, or nothing at the end."""
        self._at += skipped
        while True:
            space = _SPACES.match(self._text, self._at)
            self._at = space.end() if space else self._at
            if self._is_whole or len(self._text) - self._at > self._window:
                return self._text[self._at : self._at + 1]
            self._take(self._read())

    def _value(self) -> Any:
        try:
            value, self._at = _DECODER.raw_decode(self._text, self._at)
        except RecursionError:
            raise InvalidBody("the body is nested too deeply") from None
        except json.JSONDecodeError as error:
            longer = "" if self._is_whole else f", or has a value of more than {self._window} characters"
            place = f"character {self._gone + error.pos}"
            raise InvalidBody(f"the body is not JSON{longer}: {error.msg} ({place})") from None
        except ValueError:  # Python's guard against integers that take long to read
            digits = sys.get_int_max_str_digits()
            raise InvalidBody(f"the body has a whole number of more than {digits} digits") from None
        return value
