"""The page on which a radiologist asks: its files, under a policy that lets it speak with this service alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Request, Response
from fastapi import Path as PathParameter
from pydantic import BaseModel, Field
from starlette.staticfiles import StaticFiles

from pacs_cbir import __version__
from pacs_cbir.embed.architecture import Architecture
from pacs_cbir.serve.schemas import problems
from pacs_cbir.settings import Settings
from pacs_cbir.store import encoders
from pacs_cbir.store.session import Database

WEB = Path(__file__).with_name("web")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Kept, and asked about each time: a new version is there at once, and an old one costs no second transfer.
    "Cache-Control": "no-cache",
}


class PageSettings(BaseModel):
    """What the page needs to know of the installation."""

    version: str
    show_identity: bool = Field(description="Whether names, IDs and accession numbers are shown.")
    viewer_url: str = Field(description="Template of the viewer's URLs.")
    parts: dict[str, float] = Field(description="Part of the encoder's embeddings → its share in the similarity.")
    unrelated: dict[str, float] = Field(
        description="MR sequence → similarity that unrelated patients' series usually reach."
    )
    unrelated_slices: dict[str, float] = Field(description="The same of a slice and the nearest one of a series.")


def page_router(settings: Settings, database: Database) -> APIRouter:
    """Routes of the page."""
    router = APIRouter(tags=["page"])
    files = StaticFiles(directory=WEB)

    async def file(request: Request, name: str) -> Response:
        response = await files.get_response(name, request.scope)
        response.headers.update(HEADERS)
        return response

    @router.head("/", include_in_schema=False)
    @router.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        """The page."""
        return await file(request, "index.html")

    @router.head("/page/{name}", include_in_schema=False)
    @router.get("/page/{name}", include_in_schema=False)
    async def page_file(
        request: Request, name: Annotated[str, PathParameter(pattern=r"^[a-z0-9-]+\.[a-z]+$")]
    ) -> Response:
        """A file of the page."""
        return await file(request, name)

    @router.get("/page-settings", responses=problems(503))
    def page_settings() -> PageSettings:
        """What the page needs to know of the installation."""
        with database.transaction() as connection:
            encoder = encoders.active(connection)
        card = {} if encoder is None else encoder.card
        shares = Architecture.model_validate(card["architecture"]).shares if card else {}
        return PageSettings(
            version=__version__,
            show_identity=settings.show_identity,
            viewer_url=settings.viewer_url,
            parts={str(part): share for part, share in shares.items()},
            unrelated=card.get("unrelated", {}),
            unrelated_slices=card.get("unrelated_slices", {}),
        )

    return router
