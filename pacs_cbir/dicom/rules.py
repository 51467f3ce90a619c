"""A site's own rules, from a TOML file: which headers are which MR sequence, before `classify_header` reads them.

    [[rule]]
    sequence = "FLAIR"
    when.SeriesDescription = ["*dark fluid*", "*tirm*"]
    when.EchoTime = { min = 80 }

The first rule whose conditions all hold decides. What it looks at is kept with each stack, so that other rules can be
tried on what is here already.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, ValidationError, model_validator
from pydantic_core import ErrorDetails

from pacs_cbir.dicom.frames import first_number
from pacs_cbir.dicom.sequence import SequenceEvidence, classify_header
from pacs_cbir.dicom.sequence_header import LOOKED_AT, NUMBERS, Header, Sequence, looked_at
from pacs_cbir.errors import SettingsError

VARIABLE = "PACS_CBIR_SEQUENCE_RULES"


@dataclass(frozen=True)
class Text:
    """Holds where a value is like one of some patterns (`*`, `?`, `[abc]`), whatever the case.

    A missing value is an empty one; of an attribute with several values one must be.
    """

    patterns: tuple[str, ...]

    def holds(self, value: str) -> bool:
        """Whether a header's value fits."""
        values = [one.strip().casefold() for one in value.split("\\")]
        return any(fnmatchcase(one, pattern.casefold()) for one in values for pattern in self.patterns)


@dataclass(frozen=True)
class Range:
    """Holds where a number, of several the first, is from `least` to `most`; a missing one is not."""

    least: float
    most: float

    def holds(self, value: str) -> bool:
        """Whether a header's value fits."""
        number = first_number(value.split("\\", maxsplit=1)[0])
        return number is not None and self.least <= number <= self.most


def _known(keyword: str) -> str:
    if keyword not in LOOKED_AT:
        raise ValueError(f"not a header value that is looked at; these are: {', '.join(LOOKED_AT)}")
    return keyword


def _condition(value: object) -> Text | Range:
    if isinstance(value, dict):
        if not value or value.keys() - {"min", "max"} or not all(type(one) in {int, float} for one in value.values()):
            raise ValueError("{ min = …, max = … } has two numbers, or one of them")
        found = Range(value.get("min", -math.inf), value.get("max", math.inf))
        if not found.least <= found.most:
            raise ValueError("min is above max")
        return found
    patterns = value if isinstance(value, list) and value else [value]
    if not all(isinstance(one, str) for one in patterns):
        raise ValueError("a pattern in quotes, a list of them, or { min = …, max = … }")
    return Text(tuple(str(one) for one in patterns))


class Rule(BaseModel):
    """What a header must say, and the sequence that it then is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sequence: Sequence
    when: Mapping[Annotated[str, AfterValidator(_known)], Annotated[Text | Range, PlainValidator(_condition)]] = Field(
        min_length=1
    )

    @model_validator(mode="after")
    def _numbers_have_ranges(self) -> Rule:
        for keyword, condition in self.when.items():
            if isinstance(condition, Range) != (keyword in NUMBERS):
                wanted = "{ min = …, max = … }" if keyword in NUMBERS else "a pattern in quotes"
                raise ValueError(f"{keyword} needs {wanted}")
        return self

    def holds(self, header: Header) -> bool:
        """Whether all conditions do."""
        return all(condition.holds(header.get(keyword, "")) for keyword, condition in self.when.items())


class SiteRules(BaseModel):
    """A site's rules, the first that holds decides; none by default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: tuple[Rule, ...] = ()

    def classify(self, header: Header) -> SequenceEvidence:
        """`classify_header`, unless a rule decides: then the evidence has its number, counted from 1."""
        for number, rule in enumerate(self.rule, start=1):
            if rule.holds(header):
                return SequenceEvidence(rule.sequence, looked_at(header) | {"rule": f"site rule {number}"})
        return classify_header(header)


NO_RULES = SiteRules()


def read_rules(path: Path | None) -> SiteRules:
    """The rules of a file; none without one.

    Raises:
        SettingsError: it cannot be read, or a rule cannot be understood; says which and why.
    """
    if path is None:
        return NO_RULES
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"{VARIABLE}: {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"{VARIABLE}: {path} is not TOML: {error}") from error
    try:
        return SiteRules.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(_problem(one) for one in error.errors(include_url=False))
        raise SettingsError(f"{VARIABLE}: {path}: {problems}") from None


def _problem(error: ErrorDetails) -> str:
    place, message = error["loc"], error["msg"].removeprefix("Value error, ")
    names = [str(one) for one in place if one != "[key]"]
    in_rule = len(place) > 1 and isinstance(place[1], int)
    if in_rule:
        names = [f"rule {int(place[1]) + 1}", *names[2:]]
    if error["type"] == "extra_forbidden":
        keys = " and ".join(Rule.model_fields) if in_rule else "[[rule]] alone"
        message = f"there is no such key; {'a rule' if in_rule else 'the file'} has {keys}"
    return f"{' '.join(names)}: {message}"
