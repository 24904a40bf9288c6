"""What a camera says, and what a finished stay says: parse, validate, serialise.

All three kinds are pydantic models in canonical form: the plate as `canonical_plate` makes it, times as
`canonical_time` makes them. Fields that an event has beside its own are kept (``extra``) and go into the record.
"""

from __future__ import annotations

import codecs
import json
import sys
import unicodedata
from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from carpark.domain.canonical import (
    LETTERS,
    MAX_PLATE,
    RFC3339,
    TIME_LENGTH,
    canonical_plate,
    canonical_time,
    duration_between,
    format_duration,
    format_time,
    parse_time,
)
from carpark.errors import MAX_SHOWN, InvalidBody, InvalidEvent, InvalidSummary, shown

__all__ = [
    "EVENT_OF_QUEUE",
    "MAX_BODY_BYTES",
    "MAX_NESTING",
    "PRIVATE",
    "TIME_LENGTH",
    "Event",
    "StaySummary",
    "VehicleEntered",
    "VehicleExited",
    "canonical_plate",
    "canonical_time",
    "duration_between",
    "format_duration",
    "format_time",
    "kind_of",
    "load_json",
    "parse_time",
]

MAX_BODY_BYTES = 64 * 1024
"""The longest body that is read, in bytes."""

MAX_NESTING = 256
"""How deep lists and objects may be nested in a body. Python's own limit depends on who calls, and so would differ
between the place that reads an event and the place that writes it again."""

PRIVATE = 0o640
"""The mode of a new file with plates in it: its owner and group may read it, nobody else. That of one that is there is
somebody's decision, and stays."""


_quoted: Callable[[str], str] = json.encoder.encode_basestring


def _check_id(text: str) -> str:
    # Of the control characters none is printable; the other way round it takes a look at each character.
    if not text.isprintable() and any(unicodedata.category(c) == "Cc" for c in text):
        raise ValueError("wanted no control characters")
    if text[0] in "=@+-" and (text[0] in "=@" or not all(_is_harmless(c) for c in text[1:])):
        raise ValueError(f"wanted nothing that a spreadsheet would run, got {shown(text)}")
    return text


def _is_harmless(character: str) -> bool:
    return character in "._-/" or unicodedata.category(character) in LETTERS


def _check_duration(seconds: float) -> float:
    if round(seconds, 6) != seconds:
        raise ValueError(f"wanted at most 6 decimals, got {seconds!r}")
    return seconds + 0.0  # no negative zero


# The patterns are for readers of the JSON Schemas. They say as much as a regular expression of any language can.
Id = Annotated[
    str,
    Field(
        min_length=1,
        max_length=128,
        description="1 to 128 characters, no control characters, and nothing that a spreadsheet would run: "
        "not beginning with = or @; after a beginning + or - only letters (L*), digits (Nd), and . _ - /",
        json_schema_extra={
            "pattern": r"^(?:[^\x00-\x1f\x7f-\x9f=@+-][^\x00-\x1f\x7f-\x9f]*|[+-][^\x00-,:-@\[-^`{-\x9f]*)$"
        },
    ),
    AfterValidator(_check_id),
]
Plate = Annotated[
    str,
    Field(
        description=f"1 to {MAX_PLATE} letters (Unicode categories L*), marks (M*) and digits (Nd), not marks alone, "
        "in the form that counts: NFKC, without spaces (Z*), punctuation (P*), symbols (S*) and invisible marks (Cf), "
        "in upper case, NFKC again",
        json_schema_extra={
            "minLength": 1,
            "pattern": r"^[^\x00-\x1f\x7f-\x9f]*[^\x00-/:-@\[-`{-\x9f][^\x00-\x1f\x7f-\x9f]*$",
        },
    ),
    AfterValidator(canonical_plate),
]
Time = Annotated[
    str,
    Field(
        description="RFC 3339 date-time with at most nine fraction digits and no leap second; "
        "in UTC its year is from 0001 to 9999",
        json_schema_extra={"format": "date-time", "pattern": f"^{RFC3339.pattern}$"},
    ),
    AfterValidator(canonical_time),
]


class _Event(BaseModel):
    """What both events have."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    kind: ClassVar[str]
    queue: ClassVar[str]
    time_field: ClassVar[str]

    id: Id
    vehicle_plate: Plate

    @property
    def time(self) -> str:
        """When the camera saw the vehicle: a canonical time."""
        moment: str = self.__dict__[self.time_field]
        return moment

    @classmethod
    def parse(cls, fields: object) -> Self:
        """Make an event of decoded JSON.

        Args:
            fields: The object as it came; fields beside the event's own are kept.

        Returns:
            The event in canonical form.

        Raises:
            InvalidEvent: It is not an object, a field is missing or wrong, or one cannot be written as JSON again.
        """
        try:
            event = cls.model_validate(fields)
        except ValidationError as error:
            raise InvalidEvent(*_first_problem(error)) from None
        if event.__pydantic_extra__:  # its own fields can be written, for they are canonical
            try:
                event.to_json().encode()
            except (TypeError, ValueError, RecursionError):
                raise InvalidEvent(*_first_unwritable(event.__pydantic_extra__)) from None
        return event

    def to_json(self) -> str:
        """Write the event as one line of JSON: its own fields, then the further ones.

        Returns:
            JSON text without line breaks.
        """
        if self.__pydantic_extra__:
            return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        # The same, without the encoder that json would make for each event.
        return "{" + ",".join([f'"{name}":{_quoted(text)}' for name, text in self.__dict__.items()]) + "}"

    def to_dict(self) -> dict[str, Any]:
        """Give the event as the object that is sent.

        Returns:
            Its own fields in canonical form, then the further ones as they came.
        """
        return {**self.__dict__, **dict((self.__pydantic_extra__ or {}).items())}

    def lighten(self, read: Callable[[], Mapping[str, object]]) -> None:
        """Let go of the further fields until they are needed: as Python's values they may take thirty times their JSON.

        Args:
            read: Reads all fields again, as they came.
        """
        if self.__pydantic_extra__:
            object.__setattr__(self, "__pydantic_extra__", _Further(read, self.__dict__))


class _Further:
    """The further fields of an event, read again each time."""

    def __init__(self, read: Callable[[], Mapping[str, object]], own: Mapping[str, object]) -> None:
        self._read, self._own = read, own

    def items(self) -> list[tuple[str, object]]:
        return [item for item in self._read().items() if item[0] not in self._own]


class VehicleEntered(_Event):
    """The entry camera read a plate."""

    kind = "entry"
    queue = "vehicle_entry"
    time_field = "entry_date_time"

    entry_date_time: Time


class VehicleExited(_Event):
    """The exit camera read a plate."""

    kind = "exit"
    queue = "vehicle_exit"
    time_field = "exit_date_time"

    exit_date_time: Time


Event = VehicleEntered | VehicleExited

EVENT_OF_QUEUE: dict[str, type[VehicleEntered] | type[VehicleExited]] = {
    VehicleEntered.queue: VehicleEntered,
    VehicleExited.queue: VehicleExited,
}
"""Which event a queue carries: the queue decides what a message is."""


class StaySummary(BaseModel):
    """A finished stay: who, when in, when out, how long."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    id: Id
    vehicle_plate: Plate
    entry_date_time: Time
    exit_date_time: Time
    duration: Annotated[
        float,
        Field(ge=0, allow_inf_nan=False, description="Seconds, at most 6 decimals"),
        AfterValidator(_check_duration),
    ]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.exit_date_time < self.entry_date_time:
            raise ValueError("exit_date_time: is before entry_date_time")
        return self

    @classmethod
    def of_stay(cls, id_: str, plate: str, entry: str, exit_: str) -> StaySummary:
        """Summarise a stay whose parts are canonical already.

        Args:
            id_: The id of the exit event.
            plate: The canonical plate.
            entry: Canonical time of the entry.
            exit_: Canonical time of the exit.

        Returns:
            The summary with its duration in seconds.
        """
        return cls.model_construct(
            id=id_,
            vehicle_plate=plate,
            entry_date_time=entry,
            exit_date_time=exit_,
            duration=duration_between(entry, exit_),
        )

    @classmethod
    def parse(cls, fields: object) -> StaySummary:
        """Make a summary of decoded JSON.

        Args:
            fields: The object as it came.

        Returns:
            The summary in canonical form.

        Raises:
            InvalidSummary: It is not an object, or a field is missing or wrong.
        """
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise InvalidSummary(*_first_problem(error)) from None

    def to_dict(self) -> dict[str, Any]:
        """Give the summary as the object that is sent.

        Returns:
            Its five fields, in the order of the CSV's columns.
        """
        return dict(self.__dict__)


def load_json(body: bytes, max_bytes: int = MAX_BODY_BYTES, max_nesting: int = MAX_NESTING) -> Any:
    """Decode a body as this system reads JSON: UTF-8, no NaN, no Infinity; of duplicate keys the last one counts.

    Args:
        body: The bytes as they came.
        max_bytes: The longest body that is read.
        max_nesting: How deep lists and objects may be nested in it.

    Returns:
        The decoded value.

    Raises:
        InvalidBody: The body is too long, not UTF-8, not JSON, or nested too deeply.
    """
    if len(body) > max_bytes:
        raise InvalidBody(f"the body has {len(body)} bytes; wanted at most {max_bytes}")
    if not body:
        raise InvalidBody("the body is empty; wanted JSON")
    if body.startswith(codecs.BOM_UTF8):
        raise InvalidBody("the body starts with a byte order mark; wanted UTF-8 without one")
    # Before it is decoded: the decoder calls itself for each level.
    if body.count(b"[") + body.count(b"{") > max_nesting and _depth(body) > max_nesting:
        raise InvalidBody(f"the body is nested more than {max_nesting} levels deep")
    try:
        return _DECODER.decode(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidBody(f"the body is not UTF-8 (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise InvalidBody(f"the body is not JSON: {error}") from None
    except ValueError:  # Python's guard against integers that take long to read
        raise InvalidBody(f"the body has a whole number of more than {sys.get_int_max_str_digits()} digits") from None


def kind_of(value: object) -> str:
    """Say what a decoded JSON value is.

    Args:
        value: The value.

    Returns:
        ``an object``, ``a list``, ``text``, ``a number``, ``a truth value`` or ``null``.
    """
    names = {dict: "an object", list: "a list", str: "text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")


def _depth(body: bytes) -> int:
    """Say how deep lists and objects are nested in JSON, or in what of it is some."""
    if b"\\" in body:
        body = body.replace(rb"\\", b"").replace(rb"\"", b"")
    # What is left of the text between quotes is brackets, and mostly nothing.
    marks = body.translate(None, _NO_MARKS).replace(b'""', b"")
    outside = b"".join(marks.split(b'"')[::2])
    return max(accumulate(map(_STEPS.__getitem__, outside)), default=0)


def no_constant(name: str) -> None:
    """Refuse what Python's decoder would take for a number.

    Args:
        name: What stands there: ``NaN``, ``Infinity``, ``-Infinity``.

    Raises:
        InvalidBody: Always.
    """
    raise InvalidBody(f"the body is not JSON: {name} is not a JSON number")


_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NO_MARKS = bytes(set(range(256)) - {*_STEPS, ord('"')})
_DECODER = json.JSONDecoder(parse_constant=no_constant)  # json.loads would make one for each body


def _first_problem(error: ValidationError) -> tuple[str, str]:
    problem = error.errors(include_url=False)[0]
    reason = _reason(problem)
    if problem["loc"]:
        return str(problem["loc"][0]), reason
    field, colon, rest = reason.partition(": ")
    return (field, rest) if colon else ("body", reason)


def _reason(problem: ErrorDetails) -> str:
    """Say plainly what pydantic found wrong."""
    kind, value, context = problem["type"], problem["input"], problem.get("ctx", {})
    if kind == "missing":
        return "is missing"
    if kind == "value_error":
        return problem["msg"].removeprefix("Value error, ")
    if kind in ("string_too_short", "string_too_long"):
        return f"wanted 1 to 128 characters, got {len(value)}"
    if kind == "string_unicode":
        return "has a lone surrogate, which is not text"
    if kind == "greater_than_equal":
        return f"wanted a number from {context['ge']:g}, got {value:g}"
    wanted = {"string_type": "text", "model_type": "an object", "float_type": "a number", "finite_number": "a number"}
    got = "one that is too large" if wanted.get(kind) == "a number" == kind_of(value) else kind_of(value)
    return f"wanted {wanted.get(kind, 'another value')}, got {got}"


def _first_unwritable(extra: Mapping[str, object]) -> tuple[str, str]:
    """Find the further field that cannot be written as JSON; at least one of them cannot."""
    for name, value in extra.items():
        field = name if name.isidentifier() and name.isascii() and len(name) <= MAX_SHOWN else shown(name)
        try:
            json.dumps({name: value}, ensure_ascii=False, allow_nan=False).encode()
        except UnicodeEncodeError:
            return field, "has a lone surrogate, which is not text"
        except RecursionError:
            return field, "is nested too deeply"
        except (ValueError, TypeError):
            return field, "has a number that is too large, or is none"
    return "body", "cannot be written as JSON"
