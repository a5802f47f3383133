"""Settings dataclasses with some of their fields replaced."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Settings = TypeVar("Settings", bound="DataclassInstance")


def with_fields(settings: Settings, **values: Any) -> Settings:  # noqa: ANN401 (each field has its own type)
    """Replace fields of settings, those of nested settings by their own names, as on the command line.

    Raises:
        TypeError: There is no field of that name.
        SettingsError: A value cannot be used.
    """
    for each in fields(settings):
        if is_dataclass(nested := getattr(settings, each.name)):
            own = {name: values.pop(name) for name in values.keys() & _names(nested)}
            values[each.name] = with_fields(values.get(each.name, nested), **own)
    return replace(settings, **values)


def _names(settings: DataclassInstance | type[DataclassInstance]) -> set[str]:
    """The fields of settings and of nested settings."""
    nested = (getattr(settings, each.name) for each in fields(settings))
    return {each.name for each in fields(settings)}.union(*(_names(each) for each in nested if is_dataclass(each)))
