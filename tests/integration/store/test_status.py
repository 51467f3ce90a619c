"""The state of the service, as `status` tells it."""

from __future__ import annotations

import numpy as np
from rich.console import Console
from rows import add_patient, add_series
from sqlalchemy import insert, text
from stack_rows import DIMENSION, add_encoder, new_stack, not_embedded, save

from pacs_cbir.settings import Settings
from pacs_cbir.status import print_encoders, print_status
from pacs_cbir.store import backfills, conflicts
from pacs_cbir.store.conflicts import Kind
from pacs_cbir.store.session import Database
from pacs_cbir.store.status import service_status
from pacs_cbir.store.tables import jobs


def test_status_of_an_empty_service(database: Database) -> None:
    with database.transaction() as connection:
        found = service_status(connection)
    assert (found.patients, found.stacks, found.encoder) == (0, 0, None)
    assert (found.with_pixel_data, found.pixel_data_bytes, found.committed) == (0, 0, 0)
    assert found.jobs == {"waiting": 0, "running": 0, "parked": 0}


def test_status_counts_and_lists_what_needs_a_look(database: Database) -> None:
    with database.transaction() as connection:
        good = add_series(connection, "1", "1.1", study={"PatientID": "P1", "PatientName": "Doe^Jane"})
        add_patient(connection, good.study_id, "1", "P2")
        conflicts.record(connection, [good.study_id], Kind.SEVERAL_PATIENTS, "1.1.1")
        bad = add_series(connection, "2", "2.1")
        encoder = add_encoder(connection)
        left_out = not_embedded("localiser")
        save(connection, good.series_id, encoder, new_stack(np.eye(2, DIMENSION, dtype=np.float32)), left_out, left_out)
        now = text("clock_timestamp()")
        connection.execute(insert(jobs).values(series_id=good.series_id, not_before=now))
        connection.execute(insert(jobs).values(series_id=bad.series_id, not_before=now, status="parked", error="why"))
        beside = add_encoder(connection, "b" * 64)
        add_encoder(connection)
        save(connection, bad.series_id, beside, not_embedded("an encoder that does not answer"))
    with database.transaction() as connection:
        found = service_status(connection)
    assert (found.patients, found.studies, found.series, found.instances) == (3, 2, 2, 2)
    assert (found.stacks, found.embedded, found.not_embedded) == (3, 1, {"localiser": 2})
    assert found.embedded_series == 1
    assert found.jobs == {"waiting": 1, "running": 0, "parked": 1}
    (parked,) = found.parked
    assert (parked.study_instance_uid, parked.series_instance_uid, parked.error) == ("2", "2.1", "why")
    assert [(told.study_instance_uid, told.kind, told.instances) for told in found.conflicts] == [
        ("1", "several patients", 1)
    ]
    assert found.studies_without_patient_id == ("2",)
    assert (found.encoder, found.encoder_identity) == ("test-aaaaaaaa", "a" * 64)
    assert "Doe" not in repr(found)
    assert "P1" not in repr(found)


def test_on_80_columns_nothing_is_cut_or_broken_within_a_word(settings: Settings, database: Database) -> None:
    row_uid = "1.2.840.113619.2.55.3.604688119.971.4467"
    name, wanted = "our-hospital-2026-with-a-long-name", backfills.Filter("orthanc", "20200101-20231231", "MR", "BRAIN")
    with database.transaction() as connection:
        encoder = add_encoder(connection)
        connection.execute(
            text("UPDATE encoders SET name = :name, hours = 'Mon-Fri 19:00-06:00', workers = 2 WHERE id = :id"),
            {"name": name, "id": encoder},
        )
        backfills.begin(connection, wanted)
        row = add_series(connection, row_uid.removesuffix(".4467"), row_uid)
        connection.execute(
            insert(jobs).values(
                series_id=row.series_id, not_before=text("clock_timestamp()"), status="parked", error="DecodingError: x"
            )
        )
    said = Console(record=True, width=80)
    print_status(settings, database, said)
    print_encoders(database, said)
    lines = said.export_text().splitlines()
    assert max(len(line) for line in lines) <= 80
    cells = " ".join(word for line in lines for word in line.replace("│", " ").replace("┃", " ").split())
    for whole in (name, "0 waiting, 0 running, 0 parked", "0 of 1 series", "19:00-06:00", "2 workers", "orthanc"):
        assert whole in cells
    for word in ("20200101-20231231,", "MR,", "BRAIN", "Searched", "Study", "DecodingError:"):
        assert word in cells.split()
    # UIDs may fold.
    head = next(number for number, line in enumerate(lines) if "Series" in line and "Error" in line)
    place = [cell.strip() for cell in lines[head].split("┃")].index("Series")
    folded = [line.split("│")[place].strip() for line in lines[head + 2 :] if line.count("│") == lines[head].count("┃")]
    assert folded[0] != row_uid
    assert "".join(folded) == row_uid
