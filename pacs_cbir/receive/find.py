"""C-FIND in the Study Root model (PS3.4 C.4.1, C.6.2): what is stored here, or what looks like an example."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from itertools import islice

import httpx
import structlog
from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_VR
from pydicom.tag import Tag
from pydicom.uid import UID
from pynetdicom.dsutils import encode
from pynetdicom.events import Event

from pacs_cbir.dicom import private_block as ours
from pacs_cbir.dicom.data_set import data_set
from pacs_cbir.errors import PacsCbirError
from pacs_cbir.receive.ask_api import ask
from pacs_cbir.receive.identifier import LEVELS, MAX_IDENTIFIER_BYTES, UNIQUE_KEYS, Identifier, read_identifier
from pacs_cbir.receive.status import (
    CANCELLED,
    OUT_OF_RESOURCES,
    PENDING,
    PENDING_WITHOUT_SOME_KEYS,
    answer,
    status_of,
)
from pacs_cbir.store import catalogue, labels
from pacs_cbir.store.session import Database

MAX_ANSWERS = 5000
"""To one query; whoever asks for more is told that there are more."""

Answer = tuple[Dataset, Dataset | None]

log = structlog.get_logger()


class BoundedBuffer(io.BytesIO):
    """What pynetdicom gathers a request in: it keeps enough of one that is too long to be refused as that."""

    def write(self, data: object) -> int:
        """Append, unless it is too long already."""
        content = bytes(data)  # type: ignore[call-overload]  # whatever io.BytesIO takes
        return len(content) if self.tell() > MAX_IDENTIFIER_BYTES else super().write(content)


def find(event: Event, database: Database, api: httpx.Client) -> Iterator[Answer]:
    """Answer a query: status and identifier of each response but the last, which says success."""
    started, sent = time.perf_counter(), 0
    peer: dict[str, object] = {"calling_ae_title": str(event.assoc.requestor.ae_title).strip()}
    try:
        encoded = getattr(event.request, "Identifier", None)
        identifier = read_identifier(b"" if encoded is None else encoded.getvalue(), UID(event.context.transfer_syntax))
        peer |= {"query_level": identifier.level.value, "by_example": identifier.by_example}
        found = _similar(identifier, api) if identifier.by_example else _stored(identifier, database)
        status = answer(PENDING if identifier.all_supported else PENDING_WITHOUT_SOME_KEYS)
        for ds in islice(found, MAX_ANSWERS):
            if event.is_cancelled:
                log.info("query cancelled", answers=sent, **peer)
                yield answer(CANCELLED), None
                return
            yield status, ds
            sent += 1
        if next(found, None) is not None:
            yield _refused(OUT_OF_RESOURCES, f"only the first {MAX_ANSWERS} matches; narrow the query", peer)
            return
    except PacsCbirError as error:
        yield _refused(status_of(error), str(error), peer)
        return
    except Exception as error:
        log.exception("query broke", **peer)
        yield answer(status_of(error), "an error that was not foreseen; see the log"), None
        return
    log.info("query answered", answers=sent, ms=round((time.perf_counter() - started) * 1000, 1), **peer)


def _refused(code: int, comment: str, peer: dict[str, object]) -> Answer:
    log.warning("query refused", status=f"{code:04X}", error=comment, **peer)
    return answer(code, comment), None


def _stored(identifier: Identifier, database: Database) -> Iterator[Dataset]:
    """What is here, in the order in which it came; the transaction ends before the first is given."""
    any_of = labels.checked(identifier.private.get(ours.LABELS, []))
    with database.transaction() as connection:
        found = catalogue.find(
            connection, identifier.level, identifier.matching, limit=MAX_ANSWERS + 1, offset=0, labels=any_of
        )
    return (_response(data_set(one, identifier.returned), one, identifier) for one in found)


def _similar(identifier: Identifier, api: httpx.Client) -> Iterator[Dataset]:
    """What looks like the example, best first."""
    for found in ask(api, identifier):
        keywords = {element.keyword: element for element in found}
        kept = Dataset()
        for element in found:
            if element.tag.group == ours.PRIVATE_GROUP or element.keyword in identifier.returned:
                kept.add(element)
        uids = {key: [str(keywords[key].value)] for key in UNIQUE_KEYS[identifier.level]}
        yield _response(kept, uids, identifier)


def _response(ds: Dataset, attributes: catalogue.Attributes, identifier: Identifier) -> Dataset:
    """Complete an answer (PS3.4 C.4.1.1.3.2): level, unique keys, and, empty, the keys that are not there."""
    ds.update(data_set(attributes, UNIQUE_KEYS[identifier.level]))
    ds.QueryRetrieveLevel = next(name for name, level in LEVELS.items() if level is identifier.level)
    ds.SpecificCharacterSet = "ISO_IR 192"
    for keyword in identifier.returned:
        if keyword not in ds:
            vr = dictionary_VR(keyword).split(" or ")[0]
            ds.add(DataElement(Tag(keyword), vr, [] if vr == "SQ" else None))
    return ds if _can_be_sent(ds) else _without_the_unsendable(ds)


def _can_be_sent(ds: Dataset) -> bool:
    return encode(ds, is_implicit_vr=True, is_little_endian=True) is not None


def _without_the_unsendable(ds: Dataset) -> Dataset:
    """Empty what has no encoding, so that one value that is not of its VR spoils no answer."""
    for element in list(ds):
        alone = Dataset()
        alone.SpecificCharacterSet = ds.SpecificCharacterSet
        alone.add(element)
        if not _can_be_sent(alone):
            ds[element.tag] = DataElement(element.tag, element.VR, None)
    return ds
