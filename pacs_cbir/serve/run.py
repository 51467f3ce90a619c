"""Run the API: the index follows the database in one thread, uvicorn answers in the others."""

from __future__ import annotations

import threading

import structlog
import uvicorn

from pacs_cbir.embed.decode import PICTURES, Decoder
from pacs_cbir.errors import SettingsError
from pacs_cbir.search.follow import Follower
from pacs_cbir.search.forget import resume
from pacs_cbir.search.searcher import Searcher
from pacs_cbir.serve.app import create_app
from pacs_cbir.settings import Settings
from pacs_cbir.store import files
from pacs_cbir.store.session import Database
from pacs_cbir.store.uploads import purge_uploads

# Requests under way at the end may take this long.
FAREWELL_SECONDS = 5

log = structlog.get_logger()


def run_api(settings: Settings, database: Database, stop: threading.Event) -> None:
    """Serve until `stop` is set.

    Raises:
        SettingsError: the address is taken or not ours, or the data directory is another database's.
        DiskUnavailable: the data directory cannot be written.
    """
    files.prepare(settings)
    files.claim(settings, database)
    purge_uploads(settings)
    follower = Follower(database, settings.index_dir)
    following = threading.Thread(target=follower.run, args=(stop,), name="follower")
    with Decoder(settings.decode_seconds, settings.decode_megabytes, PICTURES) as decoder:
        app = create_app(settings, database, Searcher(database, follower), decoder)
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                host=settings.http_host,
                port=settings.http_port,
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=FAREWELL_SECONDS,
            )
        )
        following.start()
        threading.Thread(target=resume, args=(settings, database, stop), daemon=True).start()

        def end() -> None:
            stop.wait()
            server.should_exit = True

        threading.Thread(target=end, daemon=True).start()
        log.info("API listens", url=f"http://{settings.http_host}:{settings.http_port}/")
        try:
            server.run()
        except SystemExit:
            raise SettingsError(
                f"cannot listen on {settings.http_host}:{settings.http_port}; "
                "set PACS_CBIR_HTTP_HOST and PACS_CBIR_HTTP_PORT"
            ) from None
        finally:
            stop.set()
            following.join()
