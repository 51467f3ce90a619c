"""QIDO-RS and WADO-RS (PS3.18 10.6, 10.4), by dicomweb-client."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import pydicom
import requests
from dicomweb_client import DICOMwebClient
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from urllib3.exceptions import ReadTimeoutError

from pacs_cbir.errors import InstanceError, NotDicom, PeerAway, PeerError, PeerRefuses, PeerSilent
from pacs_cbir.pacs.archive import MOST_ANSWERS, Fetched, Found, Level
from pacs_cbir.pacs.association import CONNECT_SECONDS
from pacs_cbir.pacs.dimse import SHOWN_UIDS
from pacs_cbir.peers import Peer
from pacs_cbir.settings import Settings
from pacs_cbir.store import files
from pacs_cbir.store.ingest import Source, ingest
from pacs_cbir.store.session import Database

PAGE = 500
CHUNK_BYTES = 1 << 20
UNDEFINED_LENGTH = 0xFFFFFFFF
# Instances as the PACS has them, whatever their transfer syntax.
AS_THEY_ARE = (("application/dicom", "*"),)
REFUSALS = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED}
AWAY = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE}


@dataclass(frozen=True)
class WebArchive:
    """A PACS that is asked over HTTP; see `Archive`."""

    peer: Peer
    settings: Settings
    database: Database

    def find(self, level: Level, keys: Mapping[str, str]) -> Found:
        """By QIDO-RS, page by page until there is no more."""
        keys = dict(keys)
        search = self._search(level, keys)
        filters = {keyword: value for keyword, value in keys.items() if value}
        fields = [keyword for keyword, value in keys.items() if not value]
        answers: list[Dataset] = []
        with self._translated():
            while page := search(search_filters=filters, fields=fields, limit=PAGE, offset=len(answers)):
                if len(answers) >= MOST_ANSWERS:
                    return Found(tuple(answers), truncated=True)
                read = [Dataset.from_json(answer) for answer in page]
                if answers and read[0] == answers[-len(page)]:
                    # It knows no offset, and gives the same page again: a full one may lack some.
                    return Found(tuple(answers), truncated=len(page) == PAGE)
                answers += read
        return Found(tuple(answers))

    def _search(self, level: Level, keys: dict[str, str]) -> Callable[..., list[dict[str, Any]]]:
        client = self._client()
        if level == "STUDY":
            return client.search_for_studies
        study = keys.pop("StudyInstanceUID")
        if level == "SERIES":
            return lambda **query: client.search_for_series(study, **query)
        series = keys.pop("SeriesInstanceUID")
        return lambda **query: client.search_for_instances(study, series, **query)

    def fetch(self, study_instance_uid: str, series_instance_uid: str | None = None) -> Fetched:
        """By WADO-RS, one instance in memory at a time; the instances go through `ingest`."""
        client = self._client()
        completed, refused = 0, []
        with self._translated():
            if series_instance_uid is None:
                received = client.iter_study(study_instance_uid, media_types=AS_THEY_ARE)
            else:
                received = client.iter_series(study_instance_uid, series_instance_uid, media_types=AS_THEY_ARE)
            for ds in received:
                try:
                    self._ingest(ds)
                    completed += 1
                except InstanceError as error:
                    refused.append(f"{ds.get('SOPInstanceUID', 'an instance without a UID')} was refused: {error}")
        return Fetched(completed, failed=len(refused), failures=tuple(refused[:SHOWN_UIDS]))

    def _ingest(self, ds: Dataset) -> None:
        _require_whole(ds)
        path = self.settings.incoming_dir / f"{uuid.uuid4().hex}.part"
        try:
            with files.disk_errors():
                pydicom.dcmwrite(path, ds)
            ingest(path, Source(self.peer.ae_title), self.database, self.settings)
        finally:
            files.discard(path)

    def _client(self) -> DICOMwebClient:
        assert self.peer.dicomweb_url is not None  # noqa: S101 - the settings refuse a peer like that
        session = requests.Session()
        if self.peer.dicomweb_user is not None and self.peer.dicomweb_password is not None:
            session.auth = (self.peer.dicomweb_user, self.peer.dicomweb_password.get_secret_value())
        timeout = min(CONNECT_SECONDS, self.peer.timeout_seconds), self.peer.timeout_seconds
        client = DICOMwebClient(self.peer.dicomweb_url, session=session, chunk_size=CHUNK_BYTES, timeout=timeout)
        # Waiting for a peer is the caller's to decide.
        client.set_http_retry_params(retry=False)
        return client

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """What requests and dicomweb-client raise → our errors. Their texts are left out: they quote what they read."""
        name = f"{self.peer.ae_title} at {self.peer.dicomweb_url}"
        is_it_there = "is dicomweb_url in PACS_CBIR_PEERS where its DICOMweb starts?"
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", module="dicomweb_client")
                yield
        except requests.HTTPError as error:
            status = 0 if error.response is None else error.response.status_code
            if status in REFUSALS:
                raise PeerRefuses(
                    f"{name} refuses us (HTTP {status}): set dicomweb_user and dicomweb_password in PACS_CBIR_PEERS"
                ) from None
            if status == HTTPStatus.GATEWAY_TIMEOUT:
                raise PeerSilent(f"{name} took too long for its gateway (HTTP {status})") from None
            if status in AWAY:
                raise PeerAway(f"{name} does not answer at present (HTTP {status})") from None
            asked_wrongly = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
            hint = f": {is_it_there}" if asked_wrongly else ""
            raise PeerError(f"{name} answered with HTTP {status}{hint}") from None
        except requests.exceptions.ChunkedEncodingError:
            raise PeerError(f"{name} broke off an answer") from None
        # What requests says of an answer that is no JSON is one of its own errors, too.
        except (ValueError, KeyError, EOFError, pydicom.errors.InvalidDicomError) as error:
            what = f"answered with what is no DICOMweb ({type(error).__name__})"
            raise PeerError(f"{name} {what}: {is_it_there}") from None
        except requests.RequestException as error:
            if isinstance(error, requests.ReadTimeout) or any(isinstance(one, ReadTimeoutError) for one in error.args):
                raise PeerSilent(f"{name} was silent for {self.peer.timeout_seconds:g} s") from None
            raise PeerAway(f"{name} does not answer: {type(error).__name__}") from None


def _require_whole(ds: Dataset) -> None:
    """An answer that ends too early leaves a short last value, which would be written as if it were whole.

    Raises:
        NotDicom: a value is shorter than its length says.
    """
    for tag in ds.keys():  # noqa: SIM118 - a Dataset iterates over elements, and would decode them
        element = ds.get_item(tag)
        if isinstance(element, RawDataElement) and len(element.value or b"") != element.length != UNDEFINED_LENGTH:
            raise NotDicom("the data set is cut off")
