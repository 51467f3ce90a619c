"""A site's own rules: which headers they fit, and what is said of a file that cannot be used."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import MRImageStorage

from pacs_cbir.dicom.rules import read_rules
from pacs_cbir.dicom.sequence import classify_header, not_embeddable
from pacs_cbir.dicom.sequence_header import Sequence, header_of
from pacs_cbir.errors import SettingsError

RULES = """
[[rule]]
sequence = "unknown"
when.SeriesDescription = "*do not use*"

[[rule]]
sequence = "FLAIR"
when.SeriesDescription = ["*sharp?water*", "flr[0-9]"]
when.EchoTime = { min = 80, max = 140 }

[[rule]]
sequence = "localiser"
when.ImageType = "planning"

[[rule]]
sequence = "T1CE"
when.ProtocolName = "brain +"
when.ContrastBolusAgent = ""

[[rule]]
sequence = "T1"
when.Manufacturer = "GE*"
when.InversionTime = { max = 900 }
"""


def write(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def values(**attributes: object) -> dict[str, str]:
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return header_of(ds)


@pytest.mark.parametrize(
    ("attributes", "expected", "rule"),
    [
        ({"SeriesDescription": "AX Sharp-Water", "EchoTime": "100"}, Sequence.FLAIR, "site rule 2"),
        ({"SeriesDescription": "FLR3", "EchoTime": "140"}, Sequence.FLAIR, "site rule 2"),
        ({"SeriesDescription": "FLR3 sag", "EchoTime": "100"}, Sequence.UNKNOWN, None),
        ({"SeriesDescription": "AX sharp water", "EchoTime": "79.9"}, Sequence.UNKNOWN, None),
        ({"SeriesDescription": "AX sharp water"}, Sequence.UNKNOWN, None),
        # The first that holds decides.
        ({"SeriesDescription": "sharp water DO NOT USE", "EchoTime": "100"}, Sequence.UNKNOWN, "site rule 1"),
        # One of several values, and one that is missing.
        ({"ImageType": ["ORIGINAL", "PRIMARY", "PLANNING"]}, Sequence.LOCALISER, "site rule 3"),
        ({"ProtocolName": "Brain +"}, Sequence.T1CE, "site rule 4"),
        ({"ProtocolName": "Brain +", "ContrastBolusAgent": "Dotarem"}, Sequence.UNKNOWN, None),
        ({"Manufacturer": "GE MEDICAL SYSTEMS", "InversionTime": "450"}, Sequence.T1, "site rule 5"),
        ({"Manufacturer": "GE MEDICAL SYSTEMS", "InversionTime": "901"}, Sequence.UNKNOWN, None),
        ({"Manufacturer": "GE MEDICAL SYSTEMS"}, Sequence.UNKNOWN, None),
        # Where no rule holds the header is read as without any.
        ({"SeriesDescription": "t2 flair"}, Sequence.FLAIR, None),
    ],
)
def test_the_first_rule_that_holds_decides(
    tmp_path: Path, attributes: dict[str, object], expected: Sequence, rule: str | None
) -> None:
    rules = read_rules(write(tmp_path / "rules.toml", RULES))
    header = values(**attributes)
    found = rules.classify(header)
    assert found.sequence is expected
    if rule is None:
        assert found == classify_header(header)
    else:
        assert found.evidence == header | {"rule": rule}
    # From what is kept, and in the process that decodes, they say the same.
    assert rules.classify(found.evidence) == pickle.loads(pickle.dumps(rules)).classify(header) == found


def test_what_is_a_localiser_for_the_site_is_not_embedded_and_what_is_none_is(tmp_path: Path) -> None:
    rules = read_rules(
        write(
            tmp_path / "rules.toml",
            """
            rule = [
                { sequence = "T2", when.SeriesDescription = "pilot study*" },
                { sequence = "localiser", when.SeriesDescription = "quick" },
                { sequence = "ADC", when.SeriesDescription = "dwi calc" },
                { sequence = "T1", when.SeriesDescription = "mip" },
            ]
            """,
        )
    )
    derived = {"ImageType": ["DERIVED", "SECONDARY", "MIP"]}
    reasons = [
        not_embeddable(MRImageStorage, rules.classify(values(SeriesDescription=description, **more)))
        for description, more in (("Pilot study T2", {}), ("quick", {}), ("dwi calc", {}), ("mip", derived))
    ]
    assert reasons == [
        None,
        "not embedded: localiser",
        "not embedded: derived map ADC",
        "not embedded: derived image MIP",
    ]


def test_without_a_file_there_are_no_rules() -> None:
    header = values(SeriesDescription="t2 flair")
    assert read_rules(None).classify(header) == classify_header(header)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("rule =", "is not TOML"),
        ("[[rules]]\nsequence = 'T1'", "rules: there is no such key; the file has [[rule]] alone"),
        ("[[rule]]\nsequence = 'T3'\nwhen.Manufacturer = 'GE*'", "rule 1 sequence: Input should be 'T1', 'T1CE'"),
        ("[[rule]]\nsequence = 'T1'", "rule 1 when: Field required"),
        ("[[rule]]\nsequence = 'T1'\nwhen = {}", "rule 1 when: "),
        (
            "[[rule]]\nsequence = 'T1'\nwhen.Manufacturer = 'GE*'\n[[rule]]\nsequence = 'T2'\nwhen.PatientName = '*'",
            "rule 2 when PatientName: not a header value that is looked at; these are: Manufacturer, ",
        ),
        ("[[rule]]\nsequence = 'T1'\nwhen.Manufacturer = 1", "rule 1 when Manufacturer: a pattern in quotes"),
        ("[[rule]]\nsequence = 'T1'\nwhen.Manufacturer = []", "rule 1 when Manufacturer: a pattern in quotes"),
        ("[[rule]]\nsequence = 'T1'\nwhen.EchoTime = '80'", "rule 1: EchoTime needs { min"),
        ("[[rule]]\nsequence = 'T1'\nwhen.Manufacturer = {min = 1}", "rule 1: Manufacturer needs a pattern"),
        ("[[rule]]\nsequence = 'T1'\nwhen.EchoTime = {}", "rule 1 when EchoTime: { min"),
        ("[[rule]]\nsequence = 'T1'\nwhen.EchoTime = {from = 1}", "rule 1 when EchoTime: { min"),
        ("[[rule]]\nsequence = 'T1'\nwhen.EchoTime = {min = 'a'}", "rule 1 when EchoTime: { min"),
        ("[[rule]]\nsequence = 'T1'\nwhen.EchoTime = {min = 2, max = 1}", "rule 1 when EchoTime: min is above max"),
        ("[[rule]]\nsequence = 'T1'\nwhen.EchoTime = {min = nan}", "rule 1 when EchoTime: min is above max"),
        (
            "[[rule]]\nsequence = 'T1'\nif.EchoTime = {min = 1}",
            "rule 1 if: there is no such key; a rule has sequence and when",
        ),
    ],
)
def test_what_cannot_be_used_names_file_and_rule(tmp_path: Path, content: str, complaint: str) -> None:
    path = write(tmp_path / "rules.toml", content)
    with pytest.raises(SettingsError) as raised:
        read_rules(path)
    assert str(raised.value).startswith(f"PACS_CBIR_SEQUENCE_RULES: {path}")
    assert complaint in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"missing\.toml cannot be read: No such file"):
        read_rules(tmp_path / "missing.toml")
