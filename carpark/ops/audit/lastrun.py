"""What ``carpark run`` leaves beside its CSV: its journals, where everything is, and its dead letters."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from carpark.broker.stub import StoredMessage
from carpark.domain.events import PRIVATE
from carpark.errors import InvalidSetting
from carpark.ops.audit.auditing import Sources
from carpark.plugins import Plugins, ReadBack
from carpark.plugins.loading import load
from carpark.plugins.manager import own_settings
from carpark.settings import Settings
from carpark.settings.fields import PREFIX, options_of
from carpark.settings.values import as_text
from carpark.web.ports import cause_of

_NOTE = "run.json"
_LOCK = "lock"
_LETTERS = "dead-letters.jsonl"
_SINKS, _CSV = f"{PREFIX}SINKS", f"{PREFIX}CSV"


@dataclass(frozen=True)
class LastRun:
    """A run of the whole car park in one process."""

    folder: Path
    since: str
    environ: Mapping[str, str]
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def journals(self) -> dict[str, Path]:
        """The journals: ``entry`` and ``exit`` to the file."""
        return {kind: self.folder / f"{kind}.jsonl" for kind in ("entry", "exit")}

    @classmethod
    def begin(cls, folder: Path, since: str, settings: Settings, plugins: Plugins) -> LastRun:
        used = plugins.in_use(settings, ("sinks",))
        readable = tuple(found.offer.name for found in used if found.offer.read_back)
        noted = settings.model_copy(update={"sinks": readable, "csv": settings.csv.absolute()})
        environ = {f"{PREFIX}{name.upper()}": as_text(getattr(noted, name)) for name in ("sinks", "csv", "plugins")}
        for found in plugins.in_use(noted, ("sinks",)):
            own = own_settings(found.offer, plugins.environ)
            for name, option in options_of(found.offer.settings, found.offer.variables).items():
                value = getattr(own, name)
                text = str(value.absolute()) if isinstance(value, Path) else plugins.environ.get(option.variable, "")
                if option.text.mask != "all" and option.text.shown(text) == text:
                    environ[option.variable] = text
        return cls(folder, since, environ)

    def save(self) -> None:
        """Write the note."""
        note = {name: value for name, value in asdict(self).items() if name != "folder"}
        (self.folder / _NOTE).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, csv: Path) -> LastRun:
        """Find the last run with this CSV."""
        folder = run_folder_of(csv)
        try:
            note = json.loads((folder / _NOTE).read_text(encoding="utf-8"))
            if "environ" not in note:
                raise ValueError("it is of an older carpark, whose files --journal and --csv can name")
            environ = {str(name): str(text) for name, text in dict(note["environ"]).items()}
            before, here = Path(environ.get(_CSV, csv)).absolute().parent, csv.absolute().parent
            environ = {name: _moved(text, before, here) for name, text in environ.items()}
            return cls(folder, str(note["since"]), {_SINKS: "", **environ, _CSV: str(csv)}, dict(note["counts"]))
        except FileNotFoundError:
            wanted = "the CSV of an earlier `carpark run`; or name what was published with --journal"
        except (OSError, ValueError, KeyError, TypeError) as error:
            wanted = f"a run that can be read ({cause_of(error)}); or name what was published with --journal"
        raise InvalidSetting("CARPARK_CSV", str(csv), wanted)

    def keep(self, letters: Iterable[tuple[str, StoredMessage]]) -> int:
        """Write down dead letters, which the broker of a run takes with it."""
        path, count = self.folder / _LETTERS, 0
        path.touch(PRIVATE)
        with path.open("w", encoding="ascii") as lines:
            for queue, letter in letters:
                count += 1
                body = base64.b64encode(letter.body).decode()
                lines.write(json.dumps({"queue": queue, "headers": dict(letter.headers), "body": body}) + "\n")
        return count

    @property
    def has_ended(self) -> bool:
        """Whether it came to its end, rather than being killed or running still."""
        return (self.folder / _LETTERS).exists()

    def letters(self) -> list[tuple[str, StoredMessage]]:
        """Read the dead letters that were written down."""
        path = self.folder / _LETTERS
        try:
            with path.open(encoding="ascii") as lines:
                return [
                    (str(each["queue"]), StoredMessage(base64.b64decode(each["body"]), dict(each["headers"])))
                    for each in map(json.loads, lines)
                ]
        except FileNotFoundError:
            wanted = "those of a `carpark run` that has ended; while it runs they are on its dashboard"
        except (OSError, ValueError, KeyError, TypeError) as error:
            wanted = f"dead letters that can be read ({error})"
        raise InvalidSetting("the file of dead letters", str(path), wanted)

    def sources(self, sinks: Mapping[str, ReadBack] | None = None) -> Sources:
        """Say what an audit of the run looks at."""
        return Sources(
            journals=list(self.journals.values()),
            sinks=self._sinks() if sinks is None else sinks,
            since=self.since,
            counts=self.counts,
            messages=[(queue, letter.body) for queue, letter in self.letters()] if self.has_ended else None,
        )

    def _sinks(self) -> Mapping[str, ReadBack]:
        if not self.environ[_SINKS]:
            return {}  # elsewhere no text means the default
        core = {name for each in options_of(Settings).values() for name in (each.variable, each.file_variable)}
        # Those of the core are for the next run. Among the others are the sinks' secrets.
        now = {name: text for name, text in os.environ.items() if name not in core}
        settings, plugins = load({**now, **self.environ}, kinds=("sinks",))
        return plugins.read_back(settings)


@contextmanager
def run_folder(csv: Path) -> Iterator[Path]:
    """Make room for a run's journals beside its CSV; those of the run before go.

    Where there is no room, or another run is using it, a temporary folder does for the time being.
    """
    folder = run_folder_of(csv)
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((folder / _LOCK).open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for old in (*folder.glob("*.jsonl"), *folder.glob(_NOTE)):
                old.unlink()
        except OSError:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="carpark-run-")))
        yield folder


def _moved(text: str, before: Path, here: Path) -> str:
    return str(here / Path(text).relative_to(before)) if Path(text).is_relative_to(before) else text


def run_folder_of(csv: Path) -> Path:
    """Say where a run keeps its journals, its note and its dead letters."""
    return csv.with_name(f"{csv.name}.run")
