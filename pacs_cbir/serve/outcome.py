"""What else a reader wants to know of a match: age, time since the example, labels, where the report is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from urllib.parse import quote

from pacs_cbir.settings import REPORT_FIELDS
from pacs_cbir.store.catalogue import Attributes

_DATE_DIGITS = 8


def with_age(study: Attributes) -> Attributes:
    """The attributes with PatientAge in years, reckoned from the dates where the header has none (PS3.5 6.2, AS)."""
    born, studied = _date(study, "PatientBirthDate"), _date(study, "StudyDate")
    if any(study.get("PatientAge", [])) or born is None or studied is None or studied < born:
        return study
    years = studied.year - born.year - ((studied.month, studied.day) < (born.month, born.day))
    return {**study, "PatientAge": [f"{min(years, 999):03d}Y"]}


def days_between(example: Attributes, match: Attributes) -> int | None:
    """Days from the example's StudyDate to the match's, negative where the match is older; None where one has none."""
    one, two = _date(example, "StudyDate"), _date(match, "StudyDate")
    return None if one is None or two is None else (two - one).days


def report_url(template: str | None, study: Attributes) -> str | None:
    """The site's link to a study's report; None without a template, or where the study lacks what it names."""
    if template is None:
        return None
    values = {field: quote(next(iter(study.get(field, [])), ""), safe="") for field in REPORT_FIELDS}
    if any(f"{{{field}}}" in template and not value for field, value in values.items()):
        return None
    return template.format(**values)


@dataclass(frozen=True)
class Outcome:
    """See the functions above.

    Attributes:
        days: since the first example's study; None where that is not known.
        report: the site's link.
        labels: what a person has said of the study.
    """

    days: int | None = None
    report: str | None = None
    labels: tuple[str, ...] = ()


def _date(study: Attributes, keyword: str) -> date | None:
    # Points are of older versions of the standard (PS3.5 6.2).
    text = next(iter(study.get(keyword, [])), "").replace(".", "")
    if len(text) != _DATE_DIGITS or not (text.isascii() and text.isdecimal()):
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
