"""Teachers by name, as on the command line: ``NAME[+PARAMETER=VALUE]...[:SHARE]``."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any

from feedbackgen.errors import RecipeError
from feedbackgen.teacher import Teacher, flag

DEFAULT_TEACHER = "calibrated"
# B-Pref's seven (config/train_PEBBLE.yaml and README) count in raw reward, as does imitation's SyntheticGatherer.
PRESETS: dict[str, Teacher] = {
    DEFAULT_TEACHER: Teacher(),
    "oracle": Teacher(beta=math.inf),
    "stochastic": Teacher(beta=1.0, beta_unit="reward"),
    "myopic": Teacher(beta=math.inf, beta_unit="reward", discount=0.9),
    "mistake": Teacher(beta=math.inf, beta_unit="reward", noise=0.1),
    "skip": Teacher(beta=math.inf, beta_unit="reward", skip=0.1),
    "equal": Teacher(beta=math.inf, beta_unit="reward", equal=0.1),
    # As its code runs after the first queries: thresholds by the squared factors, equal returns go to the first.
    "bpref-code": Teacher(
        beta=math.inf, beta_unit="reward", skip=0.1, equal=0.1, squares_thresholds=True, decides_ties=True
    ),
    "imitation": Teacher(beta=1.0, beta_unit="reward", discount_from="start", decides_ties=True),
}
# Of a word on the command line; the others make a preset what it is.
PARAMETERS = tuple(entry.name for entry in fields(Teacher) if entry.name not in ("squares_thresholds", "decides_ties"))


@dataclass(frozen=True, kw_only=True)
class Annotator:
    """One of those who are asked."""

    name: str
    teacher: Teacher
    share: float  # of the queries; shares add up to 1


def annotators(words: Iterable[str], overrides: Mapping[str, Any]) -> tuple[Annotator, ...]:
    """Who is asked, from the words of the command line.

    Args:
        words: ``NAME[+PARAMETER=VALUE]...[:SHARE]``; all with a share or none, which means equal shares.
        overrides: fields of `Teacher` for all of them; what a word states itself wins.

    Raises:
        RecipeError: an unknown name or parameter, a value out of range, a teacher named twice, or only some shares.
    """
    parsed = [_split_share(word) for word in words]
    names = [name for name, _ in parsed]
    for name in names:
        if names.count(name) > 1:
            raise RecipeError(f"--teacher {name}: expected each teacher once; add up the shares")
    shares = [share for _, share in parsed if share is not None]
    if shares and len(shares) < len(parsed):
        raise RecipeError(f"--teacher: expected a share for each or for none, got {len(shares)} of {len(parsed)}")
    shares = shares or [1.0] * len(parsed)
    return tuple(
        Annotator(name=name, teacher=_teacher(name, overrides), share=share / sum(shares))
        for name, share in zip(names, shares, strict=True)
    )


def _split_share(word: str) -> tuple[str, float | None]:
    name, colon, share = word.rpartition(":")
    if not colon:
        return word, None
    try:
        value = float(share)
    except ValueError:
        value = -1.0
    if not 0 < value < math.inf:
        raise RecipeError(f"--teacher {word}: expected NAME:SHARE with a share above 0, got {share!r}")
    return name, value


def _teacher(word: str, overrides: Mapping[str, Any]) -> Teacher:
    name, *parts = word.split("+")
    if name not in PRESETS:
        near = get_close_matches(name, PRESETS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(PRESETS)}"
        raise RecipeError(f"--teacher {name}: no such teacher; {hint}")
    own: dict[str, Any] = {}
    for part in parts:
        key, _, text = part.partition("=")
        parameter = key.replace("-", "_")
        if parameter not in PARAMETERS:
            near = get_close_matches(parameter, PARAMETERS, n=1) or list(PARAMETERS)
            raise RecipeError(f"--teacher {word}: unknown parameter {key!r}; expected {' or '.join(near)}")
        own[parameter] = _value(word, parameter, text)
    return replace(PRESETS[name], **{**_without_rival(overrides, own), **own})


def _value(word: str, parameter: str, text: str) -> float | str:
    if parameter in ("beta_unit", "discount_from"):
        return text
    try:
        return float(text)
    except ValueError:
        raise RecipeError(f"--teacher {word}: {parameter}: expected a number, got {text!r}") from None


def _without_rival(overrides: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Beta and error rate exclude each other; a word's own wins over the other for all."""
    if "beta" in own and "error_rate" in own:
        raise RecipeError(f"{flag('beta')} and {flag('error_rate')}: expected one of them, got both")
    return {key: value for key, value in overrides.items() if not (key == "error_rate" and "beta" in own)}
