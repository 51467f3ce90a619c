"""Pictures of instances and frames (PS3.18 8.7, 10.4.1.1.3): PNG or JPEG, decoded in the child process.

Where the pixel data has left, the thumbnail that the worker kept is answered, with a Warning; 410 where there is none.
"""

from __future__ import annotations

import io
import math
import re
from http import HTTPStatus
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Path, Query, Request, Response
from PIL import Image
from starlette.exceptions import HTTPException

from pacs_cbir.embed.decode import Decoder
from pacs_cbir.embed.picture import Function, Picture, Window
from pacs_cbir.errors import InvalidQuery, PixelDataGone, VolumeError
from pacs_cbir.serve.accept import JPEG, PNG, negotiate
from pacs_cbir.serve.parameters import check_once
from pacs_cbir.serve.schemas import problems
from pacs_cbir.serve.warning import warning
from pacs_cbir.settings import Settings
from pacs_cbir.store import catalogue, retention, thumbnails
from pacs_cbir.store.catalogue import StoredFile
from pacs_cbir.store.session import Database
from pacs_cbir.store.value_tests import is_uid

MAX_VIEWPORT = 4096
JPEG_QUALITY = 90

WINDOW_FIELD = "PACS-CBIR-Window"
FUNCTIONS: dict[str, Function] = {"linear": "LINEAR", "linear-exact": "LINEAR_EXACT", "sigmoid": "SIGMOID"}
"""PS3.18 8.3.5.1.4 → PS3.3 C.11.2.1.3."""
LARGEST_VALUE = 1e12

THUMBNAIL_WARNING = "a small picture in the header's window: the pixel data is no longer here; {} sent it"

INSTANCE = "/studies/{study}/series/{series}/instances/{instance}"

Viewport = Annotated[str | None, Query(description="`width,height` in pixels: the picture is fitted into it.")]

Windowing = Annotated[
    str | None,
    Query(
        alias="window",
        description="`centre,width,function` (PS3.18 8.3.5.1.4) of rescaled values: `linear`, `linear-exact` or "
        "`sigmoid`. Without it the header's window, else percentiles. Colour has none.",
    ),
]


def rendered_router(settings: Settings, database: Database, decoder: Decoder) -> APIRouter:
    """Routes of rendered instances and frames."""
    router = APIRouter(prefix="/dicom-web", tags=["rendered"])

    def picture(
        request: Request, stored: StoredFile, number: int, viewport: str | None, windowing: str | None
    ) -> Response:
        media_type = negotiate(request.headers.get("accept"), (JPEG, PNG))
        check_once(request.query_params.multi_items(), {"viewport", "window"})
        size, window = _size(viewport), _window(windowing)
        drawn = _drawn(stored, number, window, settings, decoder)
        if drawn is None:
            pixels = _thumbnail(stored, number, database)
            headers = {"Warning": warning(THUMBNAIL_WARNING.format(stored.calling_ae_title))}
            return Response(_encode(pixels, media_type, size), media_type=media_type, headers=headers)
        headers = {} if drawn.window is None else {WINDOW_FIELD: _window_text(drawn.window)}
        return Response(_encode(drawn.pixels, media_type, size), media_type=media_type, headers=headers)

    @router.get(INSTANCE + "/rendered", response_class=Response, responses=_RESPONSES)
    def rendered_instance(
        *,
        request: Request,
        study: str,
        series: str,
        instance: str,
        viewport: Viewport = None,
        windowing: Windowing = None,
    ) -> Response:
        """The instance's picture; of several frames the middle one."""
        stored = _stored_file(database, study, series, instance)
        return picture(request, stored, (stored.number_of_frames + 1) // 2, viewport, windowing)

    @router.get(INSTANCE + "/frames/{frame}/rendered", response_class=Response, responses=_RESPONSES)
    def rendered_frame(
        *,
        request: Request,
        study: str,
        series: str,
        instance: str,
        frame: Annotated[int, Path(ge=1, description="Counted from 1.")],
        viewport: Viewport = None,
        windowing: Windowing = None,
    ) -> Response:
        """One frame's picture."""
        stored = _stored_file(database, study, series, instance)
        if frame > stored.number_of_frames:
            raise HTTPException(HTTPStatus.NOT_FOUND, f"The instance has {stored.number_of_frames} frames.")
        return picture(request, stored, frame, viewport, windowing)

    return router


def _stored_file(database: Database, study: str, series: str, instance: str) -> StoredFile:
    if not all(is_uid(uid) for uid in (study, series, instance)):
        raise InvalidQuery("study, series and instance in the path are UIDs")
    with database.transaction() as connection:
        stored = catalogue.stored_file(connection, study, series, instance)
        if stored is not None:
            retention.record_use(connection, stored.series_id)
    if stored is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, "There is no such instance here; /dicom-web/instances lists them.")
    return stored


def _drawn(
    stored: StoredFile, number: int, window: Window | None, settings: Settings, decoder: Decoder
) -> Picture | None:
    """A frame's picture; None where its file has left."""
    if stored.file is None:
        return None
    path = settings.instances_dir / stored.file
    try:
        return decoder.render(path, number, window)
    except VolumeError:
        # Retention may have let it go since its row was read.
        if path.is_file():
            raise
        return None


def _thumbnail(stored: StoredFile, number: int, database: Database) -> npt.NDArray[np.uint8]:
    with database.transaction() as connection:
        kept = thumbnails.picture(connection, stored.id, number)
    if kept is None:
        raise PixelDataGone(stored.calling_ae_title)
    return np.asarray(Image.open(io.BytesIO(kept)))


def _size(viewport: str | None) -> tuple[int, int] | None:
    if viewport is None:
        return None
    found = re.fullmatch(r"([0-9]{1,4}),([0-9]{1,4})", viewport)
    size = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= min(size) <= max(size) <= MAX_VIEWPORT:
        raise InvalidQuery(f"viewport accepts width,height in pixels, each from 1 to {MAX_VIEWPORT}")
    return size


def _window(text: str | None) -> Window | None:
    if text is None:
        return None
    centre, width, name = ([part.strip() for part in text.split(",")] + ["", ""])[:3]
    try:
        window = Window(float(centre), float(width), FUNCTIONS[name])
    except (KeyError, ValueError):
        window = None
    if window is None or text.count(",") != 2 or not _can_be_drawn(window):
        raise InvalidQuery(
            f"window accepts centre,width,function: two numbers and one of {', '.join(FUNCTIONS)}; the width is 1 or "
            "more for linear, above 0 for the others"
        )
    return window


def _can_be_drawn(window: Window) -> bool:
    if not all(math.isfinite(value) and abs(value) <= LARGEST_VALUE for value in (window.centre, window.width)):
        return False
    return window.width >= (1.0 if window.function == "LINEAR" else float(np.finfo(np.float32).tiny))


def _window_text(window: Window) -> str:
    name = next(name for name, function in FUNCTIONS.items() if function == window.function)
    return f"{window.centre:.7g},{window.width:.7g},{name}"


def _encode(pixels: npt.NDArray[np.uint8], media_type: str, size: tuple[int, int] | None) -> bytes:
    """Encode shape (rows, columns) or (rows, columns, 3), fitted into `size` (width, height)."""
    image = Image.fromarray(pixels)
    if size is not None:
        scale = min(size[0] / image.width, size[1] / image.height)
        fitted = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(fitted, Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    if media_type == PNG:
        image.save(encoded, "PNG")
    else:
        image.save(encoded, "JPEG", quality=JPEG_QUALITY)
    return encoded.getvalue()


_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The picture.",
        "content": {JPEG: {}, PNG: {}},
        "headers": {
            WINDOW_FIELD: {
                "description": "The window that it was drawn with, as `window` takes it; colour has none.",
                "schema": {"type": "string"},
            },
            "Warning": {
                "description": "The pixel data has left, and this is the small picture that was kept.",
                "schema": {"type": "string"},
            },
        },
    },
    **problems(400, 404, 406, 410, 422, 503),
}
