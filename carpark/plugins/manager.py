"""Finds plugins and what they offer: the built-in ones, the installed ones, the modules that a setting names."""

from __future__ import annotations

import importlib
import random
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Generic, TypeVar

import pluggy

from carpark import __version__
from carpark.errors import BrokenPlugin, CarparkError, UnknownPlugin
from carpark.plugins import spec
from carpark.plugins.base import NAME, PlateGenerator, PlatesType, PluginContext, Sink, SinkType

ENTRY_POINT_GROUP = "carpark"

BUILTIN = (
    "carpark.plugins.sinks.http_csv",
    "carpark.plugins.plates.alphanumeric",
)
"""The modules of the defaults, in the order in which ``carpark plugins`` lists them."""

Offer = TypeVar("Offer", SinkType, PlatesType)


@dataclass(frozen=True)
class Found(Generic[Offer]):
    """An offer and where it came from.

    Args:
        offer: The sink or plate generator on offer.
        plugin: The plugin's name.
        version: The version of the distribution that it is part of, or empty.
        source: ``built in``, ``installed`` or ``CARPARK_PLUGINS``.
    """

    offer: Offer
    plugin: str
    version: str
    source: str


class Plugins:
    """The plugins of one process.

    Args:
        modules: Names of modules to load beside the built-in and the installed ones.

    Raises:
        BrokenPlugin: One cannot be imported, misspells a hook, raises, or offers a name that another one offers.
    """

    def __init__(self, modules: Iterable[str] = ()) -> None:
        self._manager = pluggy.PluginManager(spec.PROJECT)
        self._manager.add_hookspecs(spec)
        self._origins: dict[str, tuple[str, str]] = {}
        for name in BUILTIN:
            self._register(name, importlib.import_module(name), __version__, "built in")
        for distribution in metadata.distributions():
            for entry_point in distribution.entry_points:
                if entry_point.group == ENTRY_POINT_GROUP:
                    self._register(entry_point.name, _load(entry_point), distribution.version, "installed")
        for name in modules:
            self._register(name, _import(name), "", "CARPARK_PLUGINS")
        self._check_hooks()
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
        """
        return {
            name: _make(found := self._find("CARPARK_SINKS", name, self.sinks), found.offer.make, context)
            for name in context.settings.sinks
        }

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
        """
        found = self._find("CARPARK_PLATES", context.settings.plates, self.plates)
        generator: PlateGenerator = _make(found, found.offer.make, context, chance)
        return generator

    def _register(self, name: str, module: object, version: str, source: str) -> None:
        if name in self._origins:
            raise BrokenPlugin(
                name,
                f"there are two of this name, one {self._origins[name][1]} and one {source}; rename or remove one",
            )
        self._origins[name] = (version, source)
        try:
            self._manager.register(module, name)
        except (ValueError, pluggy.PluginValidationError) as error:
            raise BrokenPlugin(name, _one_line(error)) from None

    def _check_hooks(self) -> None:
        try:
            self._manager.check_pending()
        except pluggy.PluginValidationError as error:
            name = self._manager.get_name(error.plugin) or str(error.plugin)
            known = ", ".join(sorted(hook for hook in vars(spec) if hook.startswith("carpark_")))
            raise BrokenPlugin(name, f"{_one_line(error)}; the hooks are {known}") from None

    def _collect(self, hook: str, wanted: type[Offer]) -> dict[str, Found[Offer]]:
        found: dict[str, Found[Offer]] = {}
        for implementation in reversed(getattr(self._manager.hook, hook).get_hookimpls()):
            name = implementation.plugin_name
            try:
                offers = list(implementation.function())
            except Exception as error:
                raise BrokenPlugin(name, f"{hook} failed: {_one_line(error)}") from error
            for offer in offers:
                if not isinstance(offer, wanted) or not NAME.fullmatch(offer.name):
                    raise BrokenPlugin(
                        name,
                        f"{hook} returned {offer!r}; wanted a {wanted.__name__} with a name like 'my-name'",
                    )
                if offer.name in found:
                    raise BrokenPlugin(
                        name,
                        f"offers {offer.name!r}, as does plugin {found[offer.name].plugin!r}; remove one",
                    )
                found[offer.name] = Found(offer, name, *self._origins[name])
        return found

    @staticmethod
    def _find(setting: str, name: str, found: dict[str, Found[Offer]]) -> Found[Offer]:
        if name not in found:
            raise UnknownPlugin(setting, name, sorted(found))
        return found[name]


def _load(entry_point: metadata.EntryPoint) -> object:
    try:
        return entry_point.load()
    except Exception as error:
        raise BrokenPlugin(
            entry_point.name, f"{entry_point.value} cannot be loaded: {_one_line(error)}; fix or uninstall it"
        ) from error


def _import(name: str) -> object:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise BrokenPlugin(name, f"named in CARPARK_PLUGINS, cannot be imported: {_one_line(error)}") from error


def _make(found: Found[Any], make: Any, *arguments: object) -> Any:
    try:
        return make(*arguments)
    except CarparkError:
        raise
    except Exception as error:
        raise BrokenPlugin(found.plugin, f"{found.offer.name!r} cannot be made: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
