"""Configurations: nested frozen dataclasses to and from TOML; unknown keys and wrong types are errors."""

import dataclasses
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from feedbackgen.errors import RecipeError

Config = TypeVar("Config")


def configured(config: Config, values: Mapping[str, Any]) -> Config:
    """A copy with some values replaced; a table, or a dotted key, reaches into a nested configuration.

    Raises:
        RecipeError: an unknown key, a value of a wrong type, or one out of range.
    """
    types = get_type_hints(type(config))
    changes: dict[str, Any] = {}
    for key, value in _nested(values).items():
        if key not in types:
            near = get_close_matches(key, types, n=1)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(types)}"
            raise RecipeError(f"configuration: unknown key {key!r}; {hint}")
        current = getattr(config, key)
        if dataclasses.is_dataclass(current):
            if not isinstance(value, Mapping):
                raise RecipeError(f"configuration: {key} is a table, got {value!r}; set {key}.KEY")
            changes[key] = configured(current, value)
        else:
            changes[key] = _converted(key, value, current)
    return dataclasses.replace(config, **changes)  # type: ignore[type-var]


def read_configuration(path: Path) -> dict[str, Any]:
    """Values of a TOML file.

    Raises:
        RecipeError: no such file, or not TOML.
    """
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise RecipeError(f"configuration {path}: no such file") from error
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"configuration {path}: not valid TOML ({error})") from error


def configuration_text(config: Any) -> str:
    """A configuration as TOML, always in the same order; reading it back gives the same configuration."""
    return "\n".join(_lines(config, "")).lstrip("\n") + "\n"


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in values.items():
        table, dot, rest = key.partition(".")
        if dot:
            value = {rest: value}
        if isinstance(value, Mapping) and isinstance(nested.get(table), Mapping):
            value = {**nested[table], **value}
        nested[table] = value
    return nested


def _converted(key: str, value: Any, current: Any) -> Any:
    """The value in the type of the field's present value; text comes from the command line."""
    if isinstance(value, str) and not isinstance(current, str):
        value = _parsed(value)
    if isinstance(current, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(current, tuple) and isinstance(value, list | tuple):
        return tuple(_converted(key, item, current[0]) for item in value)
    if type(value) is not type(current):
        raise RecipeError(f"configuration: {key} expects {_kind(current)}, got {value!r}")
    return value


def _parsed(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _kind(value: Any) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return names.get(type(value), f"a list like {list(value) if isinstance(value, tuple) else value}")


def _lines(config: Any, prefix: str) -> list[str]:
    lines, tables = [], []
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        if dataclasses.is_dataclass(value):
            tables += ["", f"[{prefix}{entry.name}]", *_lines(value, f"{prefix}{entry.name}.")]
        else:
            lines.append(f"{entry.name} = {_toml(value)}")
    return lines + tables


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return repr(list(value)) if isinstance(value, tuple) else repr(value)
