"""Finds plugins and what they offer: the built-in ones, the installed ones, the modules that a setting names."""

from __future__ import annotations

import importlib
import inspect
import random
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import metadata
from pathlib import Path
from typing import Any, Generic, TypeVar

import pluggy

from carpark import __version__
from carpark.errors import BrokenPlugin, CarparkError, UnknownPlugin
from carpark.plugins import spec
from carpark.plugins.base import NAME, PlateGenerator, PlatesType, PluginContext, Sink, SinkType

ENTRY_POINT_GROUP = "carpark"

BUILTIN = (
    "carpark.plugins.sinks.http",
    "carpark.plugins.sinks.lines",
    "carpark.plugins.sinks.sqlite",
    "carpark.plugins.plates.alphanumeric",
    "carpark.plugins.plates.uk",
    "carpark.plugins.plates.singapore",
    "carpark.plugins.plates.germany",
    "carpark.plugins.plates.california",
    "carpark.plugins.plates.file",
)
"""The modules of the defaults, in the order in which ``carpark plugins`` lists them."""

HOOKS = tuple(name for name, function in vars(spec).items() if hasattr(function, f"{spec.PROJECT}_spec"))
"""The names of the hooks."""

Offer = TypeVar("Offer", SinkType, PlatesType)


@dataclass(frozen=True)
class Origin:
    """Where a plugin came from.

    Args:
        source: ``built in``, ``installed`` or ``CARPARK_PLUGINS``.
        version: The version of the distribution that it is part of, or empty.
        distribution: The name of that distribution, or of the module's file.
    """

    source: str
    version: str = ""
    distribution: str = ""

    def __str__(self) -> str:
        where = f" ({self.distribution})" if self.source != "built in" and self.distribution else ""
        return self.source + where


@dataclass(frozen=True)
class Found(Generic[Offer]):
    """An offer and where it came from.

    Args:
        offer: The sink or plate generator on offer.
        plugin: The plugin's name.
        origin: Where the plugin came from.
    """

    offer: Offer
    plugin: str
    origin: Origin


class Plugins:
    """The plugins of one process.

    Args:
        modules: Names of modules to load beside the built-in and the installed ones. They are looked for as Python
            does, and last in the current folder.

    Attributes:
        sinks: The sinks on offer, by name.
        plates: The plate generators on offer, by name.

    Raises:
        BrokenPlugin: One cannot be imported, misspells a hook, raises, or offers a name that another one offers.
    """

    def __init__(self, modules: Iterable[str] = ()) -> None:
        self._manager = pluggy.PluginManager(spec.PROJECT)
        self._manager.add_hookspecs(spec)
        self._origins: dict[str, Origin] = {}
        for name in BUILTIN:
            self._register(name, importlib.import_module(name), Origin("built in", __version__, "carpark"))
        for entry_point in metadata.entry_points(group=ENTRY_POINT_GROUP):
            self._register(entry_point.name, _load(entry_point), _origin(entry_point))
        for name in modules:
            module = _import(name)
            self._register(name, module, Origin("CARPARK_PLUGINS", "", getattr(module, "__file__", None) or ""))
        self.sinks: dict[str, Found[SinkType]] = self._collect("carpark_register_sinks", SinkType)
        self.plates: dict[str, Found[PlatesType]] = self._collect("carpark_register_plates", PlatesType)

    def make_sinks(self, context: PluginContext) -> dict[str, Sink]:
        """Make the sinks that the settings name.

        Args:
            context: What each sink is given.

        Returns:
            Name to sink, in the order of the setting.

        Raises:
            UnknownPlugin: No plugin offers one of the names.
            BrokenPlugin: A sink cannot be made.
            ConfigurationError: A sink says that a setting of its own is wrong.
        """
        found = {name: _find("CARPARK_SINKS", name, self.sinks) for name in context.settings.sinks}
        sinks: dict[str, Sink] = {}
        try:
            for name, one in found.items():
                sinks[name] = _make(one, Sink, context)
                if sinks[name].batch not in range(1, Sink.batch + 1):
                    wanted = f"batch is {sinks[name].batch!r}; wanted a whole number from 1 to {Sink.batch:,}"
                    raise BrokenPlugin(one.plugin, f"sink {name!r}: its {wanted}")
        except BaseException:
            for sink in sinks.values():
                with suppress(Exception):
                    sink.close()
            raise
        return sinks

    def make_plates(self, context: PluginContext, chance: random.Random) -> PlateGenerator:
        """Make the plate generator that the settings name.

        Args:
            context: What the generator is given.
            chance: Where all its chance comes from.

        Returns:
            The generator.

        Raises:
            UnknownPlugin: No plugin offers the name.
            BrokenPlugin: The generator cannot be made.
            ConfigurationError: The generator says that a setting of its own is wrong.
        """
        found = _find("CARPARK_PLATES", context.settings.plates, self.plates)
        generator: PlateGenerator = _make(found, PlateGenerator, context, chance)
        return generator

    def _register(self, name: str, plugin: object, origin: Origin) -> None:
        if name in self._origins:
            raise BrokenPlugin(
                name, f"there are two of this name, {self._origins[name]} and {origin}; rename or remove one"
            )
        if (other := self._manager.get_name(plugin)) is not None:
            raise BrokenPlugin(name, f"{origin}, is the plugin {other!r} again, {self._origins[other]}; name it once")
        try:
            self._manager.register(plugin, name)
        except (ValueError, pluggy.PluginValidationError) as error:
            wrong = " ".join(str(error).partition("\n")[2].split()) or _one_line(error)
            raise BrokenPlugin(name, f"{wrong}; write it as docs/hooks.md has it") from None
        self._origins[name] = origin
        self._check_hooks(name, plugin)

    def _check_hooks(self, name: str, plugin: object) -> None:
        implemented = [caller.name for caller in self._manager.get_hookcallers(plugin) or ()]
        known = ", ".join(HOOKS)
        try:
            self._manager.check_pending()
        except pluggy.PluginValidationError:
            wrong = next(hook for hook in implemented if hook not in HOOKS)
            close = get_close_matches(wrong, HOOKS, n=1)
            hint = f"did you mean {close[0]}? The" if close else "the"
            raise BrokenPlugin(name, f"there is no hook {wrong}; {hint} hooks are {known}") from None
        for hook in HOOKS:
            if hook not in implemented and inspect.isroutine(getattr(plugin, hook, None)):
                raise BrokenPlugin(name, f"its {hook} is not marked; put @carpark.hookimpl above it")
        if not implemented:
            raise BrokenPlugin(name, f"implements no hook; the hooks are {known}")

    def _collect(self, hook: str, wanted: type[Offer]) -> dict[str, Found[Offer]]:
        found: dict[str, Found[Offer]] = {}
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            name = implementation.plugin_name
            for offer in _offers(name, hook, implementation.function):
                if not isinstance(offer, wanted) or not NAME.fullmatch(offer.name):
                    raise BrokenPlugin(
                        name, f"{hook} returned {offer!r}; wanted a {wanted.__name__} with a name like 'my-name'"
                    )
                if offer.name in found:
                    other = found[offer.name]
                    raise BrokenPlugin(
                        name,
                        f"offers {offer.name!r}, as does the plugin {other.plugin!r}, {other.origin}; "
                        "rename one, or uninstall a plugin",
                    )
                found[offer.name] = Found(offer, name, self._origins[name])
        return found


def _find(setting: str, name: str, found: dict[str, Found[Offer]]) -> Found[Offer]:
    if name not in found:
        raise UnknownPlugin(setting, name, sorted(found))
    return found[name]


def _origin(entry_point: metadata.EntryPoint) -> Origin:
    distribution = entry_point.dist
    return Origin("installed", distribution.version, distribution.name) if distribution else Origin("installed")


def _load(entry_point: metadata.EntryPoint) -> object:
    try:
        return entry_point.load()
    except (Exception, SystemExit) as error:
        origin = _origin(entry_point)
        remedy = f"fix it, or uninstall {origin.distribution}" if origin.distribution else "fix or uninstall it"
        raise BrokenPlugin(
            entry_point.name, f"{entry_point.value} cannot be loaded: {_one_line(error)}; {remedy}"
        ) from error


def _import(name: str) -> object:
    here = str(Path.cwd())
    if here not in sys.path:  # a script's path is where the script lies, and people write `CARPARK_PLUGINS=my_file`
        sys.path.append(here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            reason = f"cannot be imported: {_one_line(error)}; install what it needs"
        else:
            reason = (
                "there is no such module, neither installed nor in this folder nor on PYTHONPATH; install or rename it"
            )
        raise BrokenPlugin(name, f"named in CARPARK_PLUGINS: {reason}") from error
    except (Exception, SystemExit) as error:
        raise BrokenPlugin(
            name, f"named in CARPARK_PLUGINS: cannot be imported: {_one_line(error)}; fix it, or take it out"
        ) from error


def _offers(plugin: str, hook: str, function: Callable[[], Iterable[Any]]) -> list[Any]:
    try:
        returned = function()
        if isinstance(returned, Iterable):
            return list(returned)
    except Exception as error:
        raise BrokenPlugin(plugin, f"{hook} failed: {_one_line(error)}; fix it, or remove the plugin") from error
    raise BrokenPlugin(plugin, f"{hook} returned {returned!r}; wanted a list")


def _make(found: Found[Any], wanted: Any, *arguments: object) -> Any:
    try:
        made = found.offer.make(*arguments)
    except CarparkError:
        raise
    except Exception as error:
        raise BrokenPlugin(
            found.plugin, f"{found.offer.name!r} cannot be made: {_one_line(error)}; fix it, or use another one"
        ) from error
    if not isinstance(made, wanted):
        raise BrokenPlugin(found.plugin, f"{found.offer.name!r} made {made!r}; wanted a {wanted.__name__}")
    return made


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
