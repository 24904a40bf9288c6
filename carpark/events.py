"""What a camera says, and what a finished stay says: parse, validate, serialise.

All three kinds are pydantic models in canonical form: the plate as `canonical_plate` makes it, times as
`canonical_time` makes them. Fields that an event has beside its own are kept (``extra``) and go into the record.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from carpark.errors import InvalidBody, InvalidEvent, InvalidSummary

MAX_BODY_BYTES = 64 * 1024
"""The longest body that is read, in bytes."""

TIME_LENGTH = len("2026-11-23T18:00:00.123456Z")
"""The length of every canonical time; being of one length, they sort as text."""

# RFC 3339, section 5.6, without the leap second. The year 0000 is legal in a local time whose UTC year is 0001.
_RFC3339 = re.compile(
    r"([0-9]{4})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt]"
    r"([01][0-9]|2[0-3]):([0-5][0-9]):([0-5][0-9])(?:\.([0-9]{1,9}))?"
    r"(?:[Zz]|([+-])([01][0-9]|2[0-3]):([0-5][0-9]))"
)
_GREGORIAN_CYCLE = 400  # years after which the calendar repeats, leap years included


def canonical_plate(text: str) -> str:
    """Make a number plate comparable: NFC, no spaces or dashes, upper case, NFC again.

    Args:
        text: The plate as a camera or a person wrote it.

    Returns:
        1 to 16 characters, each of Unicode category ``L*`` or ``Nd``. Canonicalising it again changes nothing.

    Raises:
        ValueError: The plate is empty, too long, or has another kind of character.
    """
    if text.isascii() and text.isalnum() and len(text) <= 16:
        return text.upper()
    kept = (c for c in unicodedata.normalize("NFC", text) if unicodedata.category(c) not in ("Zs", "Pd"))
    plate = unicodedata.normalize("NFC", "".join(kept).upper())
    if not 1 <= len(plate) <= 16:
        raise ValueError(f"wanted 1 to 16 letters and digits, got {len(plate)}")
    for character in plate:
        category = unicodedata.category(character)
        if category[0] != "L" and category != "Nd":
            raise ValueError(f"wanted letters and digits, got {character!a} (Unicode category {category})")
    return plate


def canonical_time(text: str) -> str:
    """Bring an RFC 3339 date-time to UTC with six fraction digits.

    Args:
        text: RFC 3339 to the letter: ``T`` and ``Z`` in either case, or an offset ``±hh:mm``; no leap second; up to
            nine fraction digits, of which the ones after the sixth are cut off.

    Returns:
        ``2026-11-23T18:00:00.123456Z``: always `TIME_LENGTH` characters, so that times compare as text.

    Raises:
        ValueError: It is not such a date-time, or its UTC year is outside 0001 to 9999.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError("wanted an RFC 3339 date-time such as 2026-11-23T18:00:00.123456Z")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    fraction, sign, offset_hours, offset_minutes = match.groups()[6:]
    try:
        moment = datetime(year or _GREGORIAN_CYCLE, month, day, hour, minute, second)
        if sign:
            offset = timedelta(hours=int(offset_hours), minutes=int(offset_minutes))
            moment = moment - offset if sign == "+" else moment + offset
    except OverflowError:
        raise ValueError("wanted a UTC year from 0001 to 9999") from None
    except ValueError:
        raise ValueError(f"{text[:10]} is not a day of the calendar") from None
    if not year:
        if moment.year != _GREGORIAN_CYCLE + 1:
            raise ValueError("wanted a UTC year from 0001 to 9999")
        moment = moment.replace(year=1)
    micros = (fraction or "")[:6].ljust(6, "0")
    return f"{moment.isoformat(timespec='seconds')}.{micros}Z"


def format_time(moment: datetime) -> str:
    """Write an aware datetime in canonical form.

    Args:
        moment: Any aware datetime.

    Returns:
        The same moment as `canonical_time` writes it.
    """
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def parse_time(canonical: str) -> datetime:
    """Read a canonical time.

    Args:
        canonical: A time as `canonical_time` returns it.

    Returns:
        The aware datetime, in UTC.
    """
    return datetime.fromisoformat(canonical)


def duration_between(entry: str, exit_: str) -> float:
    """Compute how long a stay took.

    Args:
        entry: Canonical time of the entry.
        exit_: Canonical time of the exit.

    Returns:
        Seconds, with at most 6 decimals.
    """
    return (parse_time(exit_) - parse_time(entry)) / timedelta(seconds=1)


def format_duration(seconds: float) -> str:
    """Write a duration as people and spreadsheets read it: no exponent, no trailing zeros.

    Args:
        seconds: The duration in seconds.

    Returns:
        For example ``5400``, ``0.25`` or ``0.000001``.
    """
    text = f"{seconds:.6f}".rstrip("0").rstrip(".")
    return text or "0"


def _check_id(text: str) -> str:
    if any(unicodedata.category(c) == "Cc" for c in text):
        raise ValueError("wanted no control characters")
    return text


def _check_duration(seconds: float) -> float:
    if round(seconds, 6) != seconds:
        raise ValueError("wanted at most 6 decimals")
    return seconds


Id = Annotated[
    str,
    Field(min_length=1, max_length=128, description="1 to 128 characters, no control characters"),
    AfterValidator(_check_id),
]
Plate = Annotated[
    str,
    Field(description="Letters and digits; spaces and dashes are removed, lower case becomes upper case"),
    AfterValidator(canonical_plate),
]
Time = Annotated[
    str,
    Field(description="RFC 3339 date-time", json_schema_extra={"format": "date-time"}),
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
    def parse(cls, fields: Mapping[str, Any]) -> Self:
        """Make an event of decoded JSON.

        Args:
            fields: The object; fields beside the event's own are kept.

        Returns:
            The event in canonical form.

        Raises:
            InvalidEvent: A field is missing or wrong, or a value cannot be written as JSON again.
        """
        try:
            event = cls.model_validate(fields)
            event.to_json().encode()
        except ValidationError as error:
            raise InvalidEvent(*_first_problem(error)) from None
        except (ValueError, RecursionError) as error:
            raise InvalidEvent("body", _unwritable(error)) from None
        return event

    def to_json(self) -> str:
        """Write the event as one line of JSON: its own fields, then the further ones.

        Returns:
            JSON text without line breaks.
        """
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False, separators=(",", ":"))

    def to_dict(self) -> dict[str, Any]:
        """Give the event as the object that is sent.

        Returns:
            Its own fields in canonical form, then the further ones as they came.
        """
        return {**self.__dict__, **(self.__pydantic_extra__ or {})}


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
            summary = cls.model_validate(fields)
            summary.model_dump_json()
        except ValidationError as error:
            raise InvalidSummary(*_first_problem(error)) from None
        except ValueError as error:
            raise InvalidSummary("body", _unwritable(error)) from None
        return summary

    def to_dict(self) -> dict[str, Any]:
        """Give the summary as the object that is sent.

        Returns:
            Its five fields, in the order of the CSV's columns.
        """
        return dict(self.__dict__)


def load_json(body: bytes, max_bytes: int = MAX_BODY_BYTES) -> Any:
    """Decode a body as this system reads JSON: UTF-8, no NaN, no Infinity; of duplicate keys the last one counts.

    Args:
        body: The bytes as they came.
        max_bytes: The longest body that is read.

    Returns:
        The decoded value.

    Raises:
        InvalidBody: The body is too long, not UTF-8, not JSON, or nested too deeply.
    """
    if len(body) > max_bytes:
        raise InvalidBody(f"the body has {len(body)} bytes; wanted at most {max_bytes}")
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise InvalidBody(f"the body is not UTF-8 (byte {error.start})") from None
    except RecursionError:
        raise InvalidBody("the body is nested too deeply") from None
    except ValueError as error:
        raise InvalidBody(f"the body is not JSON: {error}") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _first_problem(error: ValidationError) -> tuple[str, str]:
    problem = error.errors(include_url=False)[0]
    field = str(problem["loc"][0]) if problem["loc"] else "body"
    reason = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"] and ": " in reason:
        field, _, reason = reason.partition(": ")
    return field, "is missing" if problem["type"] == "missing" else reason


def _unwritable(error: Exception) -> str:
    if isinstance(error, UnicodeEncodeError):
        return "has a lone surrogate, which is not text"
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    return f"cannot be written as JSON: {error}"
