"""Every error that this project raises on purpose, in one tree.

::

    CarparkError
    ├── ConfigurationError        the command or a setting is wrong: exit status 2
    │   ├── InvalidSetting
    │   ├── SeveralMistakes
    │   ├── PortTaken
    │   ├── FileInUse
    │   ├── UnknownPlugin
    │   ├── BrokenPlugin
    │   ├── PackageMissing
    │   ├── QueueMismatch
    │   ├── ExchangeMismatch
    │   └── QueueInUse
    ├── MessageError              a message is wrong: dead-lettered, never retried
    │   ├── InvalidBody
    │   ├── InvalidEvent
    │   └── InvalidSummary
    ├── DeliveryError             a sink did not take its summaries
    │   ├── SinkUnavailable
    │   └── SummaryRefused
    └── ServiceError              a server is not there (exit status 1), or refuses what the settings ask of it (2)
        ├── BrokerUnavailable
        ├── RecordsUnavailable
        └── NumbersMissing

Bases end in ``Error``; leaves state the fact. Each message is one line of printable characters that can be shown as it
is, in a terminal, a log or an AMQP header: `CarparkError` sees to that, whatever a message is made of.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

MAX_MESSAGE = 1000
"""The longest message of an error, in characters."""

MAX_SHOWN = 60
"""How many characters of a wrong value a message shows at most."""

MAX_NAMED = 6
"""How many of several things a message names at most."""


def one_line(text: str) -> str:
    """Make text fit for one line of a log, a terminal or a header.

    Args:
        text: Any text.

    Returns:
        At most `MAX_MESSAGE` printable characters: white space is one space, other unprintable characters are escaped.
    """
    line = " ".join(text[: 2 * MAX_MESSAGE].split())
    if not line.isprintable():
        line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
    return line if len(line) <= MAX_MESSAGE else line[: MAX_MESSAGE - 3] + "..."


def shown(text: str) -> str:
    """Quote a wrong value for a message.

    Args:
        text: The value as it came.

    Returns:
        Its beginning in quotes, of printable characters.
    """
    return repr(text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "...")


def named(things: Sequence[object]) -> str:
    """Name things in a message.

    Args:
        things: Any number of them.

    Returns:
        The first ones, and how many more there are.
    """
    more = len(things) - MAX_NAMED
    return ", ".join(map(str, things[:MAX_NAMED])) + (f" and {more} more" if more > 0 else "")


class CarparkError(Exception):
    """The base of all of them.

    Args:
        message: What is wrong and the way out; it is brought to one line.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(one_line(message))


class ConfigurationError(CarparkError):
    """The command or a setting was wrong. Commands end with status 2 and a line for each finding."""

    @property
    def findings(self) -> tuple[ConfigurationError, ...]:
        """Each thing that is wrong: this alone, but for `SeveralMistakes`."""
        return (self,)


class InvalidSetting(ConfigurationError):
    """A setting has a value that it cannot have.

    Args:
        name: The variable, e.g. ``CARPARK_RATE``.
        value: The value as it was given; the caller masks secrets.
        wanted: What would have been right, e.g. ``a number from 0 to 1``.
    """

    def __init__(self, name: str, value: str, wanted: str) -> None:
        super().__init__(f"{name}={shown(value)}: wanted {wanted}")
        self.name, self.value, self.wanted = name, value, wanted


class SeveralMistakes(ConfigurationError):
    """More than one thing is wrong.

    Args:
        findings: What is wrong, each with a line of its own.
    """

    def __init__(self, findings: Iterable[ConfigurationError]) -> None:
        self._findings = tuple(findings)
        super().__init__("; ".join(map(str, self._findings)))

    @property
    def findings(self) -> tuple[ConfigurationError, ...]:
        """Each of them."""
        return self._findings


class PortTaken(ConfigurationError):
    """The port that a service shall listen on is in use.

    Args:
        name: The variable that names the port.
        address: ``host:port`` as it was tried.
    """

    def __init__(self, name: str, address: str) -> None:
        super().__init__(f"{name}: {address} is already in use; choose another port, or 0 for a free one")
        self.name, self.address = name, address


class FileInUse(ConfigurationError):
    """Another process holds the file that only one may write.

    Args:
        name: The variable that names the file.
        path: The file.
    """

    def __init__(self, name: str, path: str) -> None:
        super().__init__(f"{name}={path!r}: another process is writing this file; stop it or choose another file")
        self.name, self.path = name, path


class UnknownPlugin(ConfigurationError):
    """A setting names a sink or a plate generator that no plugin offers.

    Args:
        setting: The variable, e.g. ``CARPARK_SINKS``.
        name: The name that was asked for.
        known: The names that there are.
    """

    def __init__(self, setting: str, name: str, known: list[str]) -> None:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}? There are" if close else "there are"
        super().__init__(f"{setting}={shown(name)}: there is no such plugin; {hint}: {', '.join(known)}")
        self.setting, self.name, self.known = setting, name, known


class BrokenPlugin(ConfigurationError):
    """A plugin cannot be used.

    Args:
        plugin: Its name.
        reason: One line on what is wrong and what to do.
    """

    def __init__(self, plugin: str, reason: str) -> None:
        super().__init__(f"plugin {plugin!r}: {reason}")
        self.plugin, self.reason = plugin, reason


class PackageMissing(ConfigurationError):
    """What was asked for needs a package that is not installed.

    Args:
        what: What needs it.
        package: The package.
        remedy: The command that installs it.
    """

    def __init__(self, what: str, package: str, remedy: str) -> None:
        super().__init__(f"{what} needs {package}, which is not installed: {remedy}")
        self.what, self.package, self.remedy = what, package, remedy


class QueueMismatch(ConfigurationError):
    """A queue exists with other arguments than the ones it is declared with here.

    Args:
        queue: Its name.
        reason: The broker's words.
    """

    def __init__(self, queue: str, reason: str) -> None:
        super().__init__(
            f"queue {shown(queue)} exists with other arguments than carpark's ({reason}); "
            "stop the workers and run `carpark queues --migrate`, or correct CARPARK_QUEUE_TYPE"
        )
        self.queue, self.reason = queue, reason


class ExchangeMismatch(ConfigurationError):
    """The exchange of the events exists with other arguments than the ones it is declared with here.

    Args:
        exchange: Its name.
        reason: The broker's words.
    """

    def __init__(self, exchange: str, reason: str) -> None:
        super().__init__(
            f"exchange {shown(exchange)} exists with other arguments than carpark's ({reason}); "
            "delete it, and it is declared again"
        )
        self.exchange, self.reason = exchange, reason


class QueueInUse(ConfigurationError):
    """A queue cannot be replaced, because somebody uses it.

    Args:
        queue: Its name.
        reason: Who or how, and what to do about it.
    """

    def __init__(self, queue: str, reason: str) -> None:
        super().__init__(f"queue {shown(queue)} is in use: {reason}")
        self.queue, self.reason = queue, reason


class MessageError(CarparkError):
    """A message is not what its queue or endpoint takes; sending it again changes nothing."""


class InvalidBody(MessageError):
    """A body is not JSON as this system reads it, or a Dramatiq message with a wrong part."""


class InvalidEvent(MessageError):
    """An object is not an event.

    Args:
        field: The field that is wrong.
        reason: What is wrong with it, without the field's name.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field, self.reason = field, reason


class InvalidSummary(MessageError):
    """An object is not a stay's summary.

    Args:
        field: The field that is wrong.
        reason: What is wrong with it, without the field's name.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field, self.reason = field, reason


class DeliveryError(CarparkError):
    """A sink did not take the summaries that it was given."""


class SinkUnavailable(DeliveryError):
    """For now: the same summaries are offered again after a while."""


class SummaryRefused(DeliveryError):
    """For good: offering them again changes nothing, so they are dead-lettered with this reason.

    Args:
        reason: One line on why.
        ids: The ids of the refused summaries, when the others of the list are safely kept; none when all are refused.
            With an id that is not of the list, none of them counts.
    """

    def __init__(self, reason: str, ids: Iterable[str] = ()) -> None:
        super().__init__(reason)
        self.ids = (ids,) if isinstance(ids, str) else tuple(ids)


class ServiceError(CarparkError):
    """A server that is needed is not there, or does not behave.

    Args:
        message: What is wrong and the way out.
        refuses: Whether it is there and refuses the password, a right, or an option: whoever starts need not wait.
    """

    def __init__(self, message: str = "", *, refuses: bool = False) -> None:
        super().__init__(message)
        self.refuses = refuses


class BrokerUnavailable(ServiceError):
    """RabbitMQ cannot be reached, or refuses the connection."""


class RecordsUnavailable(ServiceError):
    """Redis cannot be reached, or cannot take writes for now."""


class NumbersMissing(ServiceError):
    """A page of metrics would not be right now: numbers of a process are not there, or cannot be read."""
