"""Finds plugins and what they offer: the built-in ones, the installed ones, the modules that a setting names."""

from __future__ import annotations

import importlib
import inspect
import os
import random
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Generic, TypeVar

import pluggy
from pydantic import BaseModel

from carpark import __version__
from carpark.errors import BrokenPlugin, CarparkError, ConfigurationError, UnknownPlugin
from carpark.plugins import spec
from carpark.plugins.base import NAME, Offer, PlateGenerator, PlatesType, PluginContext, ReadBack, Sink, SinkType
from carpark.settings import Settings
from carpark.settings.fields import PREFIX, options_of, read, together

ENTRY_POINT_GROUP = "carpark"

BUILTIN = (
    "carpark.plugins.sinks.http",
    "carpark.plugins.sinks.lines",
    "carpark.plugins.sinks.sqlite",
    "carpark.plugins.plates.patterns",
    "carpark.plugins.plates.file",
)
"""The modules of the defaults, in the order in which ``carpark plugins`` lists them."""

BUILT_IN = "built in"
"""Where the defaults come from."""

PREFIXES = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*_")
"""What an offer's prefix of variables looks like."""

KINDS = ("sinks", "plates")
"""The kinds of offers: the settings that name those in use."""

HOOKS = tuple(name for name, function in vars(spec).items() if hasattr(function, f"{spec.PROJECT}_spec"))
"""The names of the hooks."""

OfferT = TypeVar("OfferT", SinkType, PlatesType)


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
        where = f" ({self.distribution})" if self.source != BUILT_IN and self.distribution else ""
        return self.source + where


@dataclass(frozen=True)
class Found(Generic[OfferT]):
    """An offer and where it came from.

    Args:
        offer: The sink or plate generator on offer.
        plugin: The plugin's name.
        origin: Where the plugin came from.
    """

    offer: OfferT
    plugin: str
    origin: Origin


class Plugins:
    """The plugins of one process.

    Args:
        modules: Names of modules to load beside the built-in and the installed ones. They are looked for as Python
            does, and last in the current folder.
        environ: Where the settings of the offers are looked for; the process's own variables by default.
        lenient: Whether those that are broken are left out, and kept in `broken`.

    Attributes:
        sinks: The sinks on offer, by name.
        plates: The plate generators on offer, by name.
        broken: What is wrong with those that were left out.

    Raises:
        ConfigurationError: One cannot be imported, misspells a hook, raises, or offers a name that another one offers.
    """

    def __init__(
        self, modules: Iterable[str] = (), environ: Mapping[str, str] | None = None, *, lenient: bool = False
    ) -> None:
        self.environ = os.environ if environ is None else environ
        self.broken: list[ConfigurationError] = []
        self._manager = pluggy.PluginManager(spec.PROJECT)
        self._manager.add_hookspecs(spec)
        self._origins: dict[str, Origin] = {}
        for name in BUILTIN:
            self._add(name, partial(importlib.import_module, name), Origin(BUILT_IN, __version__, "carpark"))
        self.installed = tuple(metadata.entry_points(group=ENTRY_POINT_GROUP))
        for entry_point in self.installed:
            self._add(entry_point.name, partial(_load, entry_point), _origin(entry_point))
        for name in modules:
            self._add(name, partial(_import, name), Origin("CARPARK_PLUGINS"))
        self.sinks: dict[str, Found[SinkType]] = self._collect("carpark_register_sinks", SinkType)
        self.plates: dict[str, Found[PlatesType]] = self._collect("carpark_register_plates", PlatesType)
        if self.broken and not lenient:
            raise together(self.broken)

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
        self._require(context.settings, "sinks")
        sinks: dict[str, Sink] = {}
        try:
            for found in self.in_use(context.settings, ("sinks",)):
                name = found.offer.name
                sinks[name] = sink = _call(found, found.offer.make, Sink, "made", context)
                if sink.batch not in range(1, Sink.batch + 1):
                    wanted = f"batch is {sink.batch!r}; wanted a whole number from 1 to {Sink.batch:,}"
                    raise BrokenPlugin(found.plugin, f"sink {name!r}: its {wanted}")
        except BaseException:
            _close(sinks.values())
            raise
        return sinks

    def try_out(self, settings: Settings, kinds: Iterable[str] = KINDS) -> None:
        """Make what the settings name and let go of it: what is wrong is said before anything else is begun.

        Args:
            settings: The process's settings.
            kinds: Which kinds of offers.

        Raises:
            ConfigurationError: Something cannot be made.
        """
        context = self.context(settings)
        if "plates" in kinds:
            self.make_plates(context, random.Random(0))
        if "sinks" in kinds:
            _close(self.make_sinks(context).values())

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
        self._require(context.settings, "plates")
        [found] = self.in_use(context.settings, ("plates",))
        generator: PlateGenerator = _call(found, found.offer.make, PlateGenerator, "made", context, chance)
        return generator

    def context(self, settings: Settings) -> PluginContext:
        """Make what offers are given.

        Args:
            settings: The process's settings.

        Returns:
            The context, with the environment of these plugins.
        """
        return PluginContext(settings, self.environ)

    def in_use(self, settings: Settings, kinds: Iterable[str] = KINDS) -> list[Found[Any]]:
        """Find what the settings name.

        Args:
            settings: The process's settings.
            kinds: Which kinds of offers: ``sinks``, ``plates``.

        Returns:
            Each, as far as it is on offer.
        """
        return [on_offer[name] for kind, name in _named(settings, kinds) if name in (on_offer := getattr(self, kind))]

    def unknown(self, settings: Settings, kinds: Iterable[str] = KINDS) -> list[UnknownPlugin]:
        """Find what the settings name and nobody offers.

        Args:
            settings: The process's settings.
            kinds: Which kinds of offers.

        Returns:
            An error for each.
        """
        return [
            UnknownPlugin(PREFIX + kind.upper(), name, sorted(on_offer))
            for kind, name in _named(settings, kinds)
            if name not in (on_offer := getattr(self, kind))
        ]

    def read_back(self, settings: Settings) -> dict[str, ReadBack]:
        """Say what the sinks in use keep.

        Args:
            settings: The process's settings.

        Returns:
            Name to what it keeps, of those that can say it.

        Raises:
            BrokenPlugin: A sink cannot say it.
            ConfigurationError: A setting of a sink is wrong.
        """
        context = self.context(settings)
        return {
            found.offer.name: _call(found, found.offer.read_back, ReadBack, "read back", context)
            for found in self.in_use(settings, ("sinks",))
            if found.offer.read_back
        }

    def _require(self, settings: Settings, kind: str) -> None:
        for error in self.unknown(settings, (kind,)):
            raise error

    def _add(self, name: str, load: Callable[[], object], origin: Origin) -> None:
        with self._keeping_what_is_broken():
            plugin = load()
            if origin.source == "CARPARK_PLUGINS":
                origin = replace(origin, distribution=getattr(plugin, "__file__", None) or "")
            self._register(name, plugin, origin)

    @contextmanager
    def _keeping_what_is_broken(self) -> Iterator[None]:
        try:
            yield
        except BrokenPlugin as error:
            self.broken.append(error)

    def _register(self, name: str, plugin: object, origin: Origin) -> None:
        if name in self._origins:
            raise BrokenPlugin(
                name, f"there are two of this name, {self._origins[name]} and {origin}; rename or remove one"
            )
        if (other := self._manager.get_name(plugin)) is not None:
            raise BrokenPlugin(name, f"{origin}, is the plugin {other!r} again, {self._origins[other]}; name it once")
        try:
            self._manager.register(plugin, name)
            self._check_hooks(name, plugin)
        except (ValueError, pluggy.PluginValidationError, BrokenPlugin) as error:
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)
            if isinstance(error, BrokenPlugin):
                raise
            wrong = " ".join(str(error).partition("\n")[2].split()) or _one_line(error)
            raise BrokenPlugin(name, f"{wrong}; write it as docs/reference/hooks.md has it") from None
        self._origins[name] = origin

    def _check_hooks(self, name: str, plugin: object) -> None:
        """Look for what pluggy does not mind: hooks that are misspelt, not marked, or none."""
        implemented = [caller.name for caller in self._manager.get_hookcallers(plugin) or ()]
        known = ", ".join(HOOKS)
        for hook in implemented:
            if hook not in HOOKS:
                close = get_close_matches(hook, HOOKS, n=1)
                hint = f"did you mean {close[0]}? The" if close else "the"
                raise BrokenPlugin(name, f"there is no hook {hook}; {hint} hooks are {known}")
        for hook in HOOKS:
            if hook not in implemented and inspect.isroutine(getattr(plugin, hook, None)):
                raise BrokenPlugin(name, f"its {hook} is not marked; put @carpark.hookimpl above it")
        if not implemented:
            raise BrokenPlugin(name, f"implements no hook; the hooks are {known}")

    def _collect(self, hook: str, wanted: type[OfferT]) -> dict[str, Found[OfferT]]:
        found: dict[str, Found[OfferT]] = {}
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            name = implementation.plugin_name
            with self._keeping_what_is_broken():
                for offer in _offers(name, hook, implementation.function):
                    with self._keeping_what_is_broken(), _blaming(name, hook, "fix it", but=BrokenPlugin):
                        if problem := _problem(offer, hook, wanted, found):
                            raise BrokenPlugin(name, problem)
                        found[offer.name] = Found(offer, name, self._origins[name])
        return found


def _problem(offer: Any, hook: str, wanted: type[OfferT], found: Mapping[str, Found[Any]]) -> str:
    """Say what is wrong with an offer."""
    if not isinstance(offer, wanted) or not NAME.fullmatch(str(offer.name)):
        return f"{hook} returned {offer!r}; wanted a {wanted.__name__} with a name like 'my-name'"
    if not (isinstance(offer.settings, type) and issubclass(offer.settings, BaseModel)):
        return f"{offer.name!r} has the settings {offer.settings!r}; wanted a class that is a pydantic.BaseModel"
    if offer.prefix and not PREFIXES.fullmatch(offer.prefix):
        return f"{offer.name!r} has the prefix {offer.prefix!r}; wanted one like 'MY_NAME_'"
    offer.settings.model_rebuild()
    if alias := next((name for name, each in offer.settings.model_fields.items() if each.validation_alias), ""):
        return f"{offer.name!r}: its setting {alias} has an alias; wanted none, the variable is made of the name"
    core = {each.variable for each in options_of(Settings).values()}
    if taken := sorted(core & {each.variable for each in options_of(offer.settings, offer.variables).values()}):
        said = f"{offer.name!r} has the setting {taken[0]}, which is carpark's own"
        return f"{said}; rename the field, or give the offer a prefix"
    if other := found.get(offer.name):
        said = f"offers {offer.name!r}, as does the plugin {other.plugin!r}, {other.origin}"
        return f"{said}; rename one, or uninstall a plugin"
    return ""


def own_settings(offer: Offer, environ: Mapping[str, str]) -> Any:
    """Read an offer's own settings.

    Args:
        offer: The offer.
        environ: The variables, flags among them.

    Returns:
        An object of its model.

    Raises:
        ConfigurationError: A value is wrong; it holds all that is wrong.
    """
    return read(offer.settings, environ, offer.variables)


def with_own(offer: Offer, context: PluginContext) -> PluginContext:
    """Give an offer its own settings.

    Args:
        offer: The offer.
        context: What all offers are given.

    Returns:
        The same with these.

    Raises:
        ConfigurationError: A value is wrong; it holds all that is wrong.
    """
    return replace(context, own=own_settings(offer, context.environ))


def _named(settings: Settings, kinds: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Give each offer that the settings name: its kind and its name."""
    for kind in kinds:
        named = getattr(settings, kind)
        yield from ((kind, name) for name in ([named] if isinstance(named, str) else named))


def _close(sinks: Iterable[Sink]) -> None:
    for sink in sinks:
        with suppress(Exception):
            sink.close()


def _origin(entry_point: metadata.EntryPoint) -> Origin:
    distribution = entry_point.dist
    return Origin("installed", distribution.version, distribution.name) if distribution else Origin("installed")


def _load(entry_point: metadata.EntryPoint) -> object:
    origin = _origin(entry_point)
    remedy = f"fix it, or uninstall {origin.distribution}" if origin.distribution else "fix or uninstall it"
    with _blaming(entry_point.name, f"{entry_point.value} cannot be loaded", remedy):
        return entry_point.load()


def _import(name: str) -> object:
    here = str(Path.cwd())
    if here not in sys.path:  # a script's path is where the script lies, and people write `CARPARK_PLUGINS=my_file`
        sys.path.append(here)
    named = "named in CARPARK_PLUGINS"
    try:
        with _blaming(name, f"{named}: cannot be imported", "fix it, or take it out", but=ModuleNotFoundError):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        reason = f"cannot be imported: {_one_line(error)}; install what it needs"
        if f"{name}.".startswith(f"{error.name}."):
            where = "neither installed nor in this folder nor on PYTHONPATH"
            reason = f"there is no such module, {where}; install or rename it"
        raise BrokenPlugin(name, f"{named}: {reason}") from error


def _offers(plugin: str, hook: str, function: Callable[[], Iterable[Any]]) -> list[Any]:
    with _blaming(plugin, f"{hook} failed", "fix it, or remove the plugin"):
        returned = function()
        if isinstance(returned, Iterable):
            return list(returned)
    raise BrokenPlugin(plugin, f"{hook} returned {returned!r}; wanted a list")


def _call(found: Found[Any], function: Any, wanted: type, done: str, context: PluginContext, *more: object) -> Any:
    context = with_own(found.offer, context)
    name = found.offer.name
    with _blaming(found.plugin, f"{name!r} cannot be {done}", "fix it, or use another one", but=CarparkError):
        if isinstance(given := function(context, *more), wanted):
            return given
    raise BrokenPlugin(found.plugin, f"{name!r} {done} {type(given).__name__}; wanted a {wanted.__name__}")


@contextmanager
def _blaming(plugin: str, what: str, remedy: str, but: type[Exception] | tuple[()] = ()) -> Iterator[None]:
    """Make of whatever the code of a plugin raises, SystemExit too, an error that names it."""
    try:
        yield
    except but:
        raise
    except (Exception, SystemExit) as error:
        raise BrokenPlugin(plugin, f"{what}: {_one_line(error)}; {remedy}") from error


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
