"""The API, put together: routes, problems, and what stands around every request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from pacs_cbir import __version__
from pacs_cbir.embed.decode import Decoder
from pacs_cbir.search.searcher import Searcher
from pacs_cbir.serve import problems
from pacs_cbir.serve.access import Access
from pacs_cbir.serve.corrections import corrections_router
from pacs_cbir.serve.dicomweb import search_router
from pacs_cbir.serve.embedder import Embedder
from pacs_cbir.serve.explain import explain_router
from pacs_cbir.serve.health import health_router
from pacs_cbir.serve.labels import labels_router
from pacs_cbir.serve.metrics import Metrics
from pacs_cbir.serve.page import page_router
from pacs_cbir.serve.patient_deletions import patient_deletions_router
from pacs_cbir.serve.prefix import Prefix
from pacs_cbir.serve.rendered import rendered_router
from pacs_cbir.serve.similar import similar_router
from pacs_cbir.serve.stow import stow_router
from pacs_cbir.serve.studies import studies_router
from pacs_cbir.settings import Settings
from pacs_cbir.store.session import Database

DESCRIPTION = """
Content-based image retrieval beside a PACS: show me studies that look like this one.

**For research and teaching. Not a medical device. Similarity is of appearance, and no probability of a diagnosis.**

Errors are problem details (RFC 9457, `application/problem+json`) whose `detail` says what to do.
"""


def create_app(settings: Settings, database: Database, searcher: Searcher, decoder: Decoder) -> FastAPI:
    """The ASGI application.

    Args:
        searcher: answers the queries by example.
        decoder: the child process that decodes pixels for pictures.
    """
    metrics = Metrics(settings, database, searcher)
    embedder = Embedder(settings, database)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with embedder:
            yield

    # Its documentation page comes from this process: a hospital's network may not reach a CDN.
    app = FastAPIOffline(
        title="pacs-cbir", version=__version__, description=DESCRIPTION, redoc_url=None, lifespan=lifespan
    )
    app.include_router(similar_router(settings, database, searcher, embedder))
    app.include_router(explain_router(database, searcher, embedder))
    app.include_router(search_router(database))
    app.include_router(stow_router(settings, database, metrics))
    app.include_router(labels_router(database))
    app.include_router(corrections_router(database))
    app.include_router(patient_deletions_router(settings, database))
    app.include_router(rendered_router(settings, database, decoder))
    app.include_router(studies_router(settings, database))
    app.include_router(page_router(settings, database))
    app.include_router(health_router(database, searcher, metrics))
    problems.install(app)
    app.add_middleware(Access, metrics=metrics)
    app.add_middleware(Prefix)
    return app
