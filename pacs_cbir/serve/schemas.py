"""The shapes of plain JSON, for OpenAPI; included DICOM attributes stand beside the named members."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_INCLUDED = ConfigDict(extra="allow")

_NOTES = (
    "`outside-encoder-domain`: not what the encoder was trained for. `slices-missing`: between others, they were "
    "rejected or never sent, and it was compared without them."
)


class Picture(BaseModel):
    """A picture in the archive."""

    SOPInstanceUID: str
    frame: int = Field(description="Counted from 1.")


class UploadedPicture(BaseModel):
    """A picture from outside that is no DICOM instance."""

    file: int = Field(description="Its number in the upload, counted from 1.")


class MatchingSlice(Picture):
    """The slice to look at."""

    similarity: float = Field(description="Cosine of the two slices, at most 1.")
    like: Picture | UploadedPicture = Field(description="The example's slice that it is like.")


class ComparedSeries(BaseModel):
    """A series of a similar study."""

    SeriesInstanceUID: str
    sequence: str = Field(description="MR sequence: T1, T1CE, T2, FLAIR, …, unknown.")
    similarity: float = Field(description="Cosine, at most 1, higher is closer.")
    parts: dict[str, float] = Field(description="Part of the embeddings → its cosine: in what the two are alike.")
    like: str | None = Field(
        None,
        description="Series Instance UID of the example's series that it is like; a PNG or JPEG has none.",
    )
    slice: MatchingSlice | None = Field(None, description="Of the two series' slices, the pair that they owe most to.")
    notes: list[str] | None = Field(None, description=_NOTES)


class SimilarStudy(BaseModel):
    """A study that looks like the example."""

    model_config = _INCLUDED

    StudyInstanceUID: str
    StudyDate: str | None = None
    StudyDescription: str | None = None
    PatientSex: str | None = None
    PatientAge: str | None = Field(None, description="As the header has it, or reckoned from its dates.")
    days: int | None = Field(None, description="From the first example's study to this one; negative: it is older.")
    report: str | None = Field(None, description="Link to the report, where the site has set `PACS_CBIR_REPORT_URL`.")
    labels: list[str] = Field(description="What a person has said of the study, in alphabetical order.")
    similarity: float = Field(
        description="Mean, by weight, over the sequences that both have of the closest pair's cosine."
    )
    coverage: float = Field(
        description="Share, by weight, of the example's sequences that were compared like with like, 0 to 1."
    )
    notes: list[str] | None = Field(None, description=_NOTES)
    series: list[ComparedSeries] = Field(description="Its series that were compared, best first.")


class SimilarSeries(ComparedSeries):
    """A series that looks like the example."""

    model_config = _INCLUDED

    StudyInstanceUID: str


class ExplainedSeries(ComparedSeries):
    """A series of the match, and what makes it like the example's."""

    slices: list[MatchingSlice] = Field(
        description="For each of the example's slices that was looked at, in their order, the match's nearest one."
    )


class ListedSeries(BaseModel):
    """A series of a study in the list."""

    model_config = _INCLUDED

    SeriesInstanceUID: str
    instances: int
    state: Literal["embedded", "waiting", "parked", "not embedded"]
    sequence: str | None = Field(None, description="MR sequence, once the series was looked at.")
    in_domain: bool | None = Field(None, description="Whether the encoder was trained for such series.")
    reason: str | None = Field(None, description="Why it has no embeddings.")
    picture: str = Field(description="SOP Instance UID of an instance from its middle.")


class ListedStudy(BaseModel):
    """A study in the list."""

    model_config = _INCLUDED

    StudyInstanceUID: str
    report: str | None = Field(None, description="Link to the report, where the site has set `PACS_CBIR_REPORT_URL`.")
    conflicts: list[str] | None = Field(
        None, description="What its instances say that cannot all be true, such as `several patients`."
    )
    received: datetime = Field(description="When the first of it came.")
    series: list[ListedSeries]


class ProblemDetails(BaseModel):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's responses for errors."""
    content = {"application/problem+json": {"schema": ProblemDetails.model_json_schema()}}
    return {status: {"description": _MEANING[status], "content": content} for status in statuses}


NOTHING_FOUND: dict[str, Any] = {"description": "Nothing matches."}
_MEANING = {
    400: "A parameter cannot be understood; `detail` says which and what is accepted.",
    403: "Not for this sender; `detail` says what allows it.",
    404: "Not here.",
    408: "The body took too long.",
    406: "Nothing on offer is in Accept.",
    409: "Not yet, or not any more, or not beside what was said before; `detail` says which.",
    410: "Here, and its pixel data is not any more; `detail` says who sent it.",
    412: "Changed since it was read; read it again.",
    413: "The body is too long.",
    414: "The URL is too long; the same can be sent as a form by POST.",
    415: "The body is of a type that is not read here.",
    422: "Here, and without embeddings or a picture, or an uploaded file is none; `detail` says why.",
    503: "The database is away, the encoder is busy, or the service is not ready.",
    507: "The disk is full.",
}
