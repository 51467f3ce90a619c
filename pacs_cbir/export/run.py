"""`pacs-cbir export`: the studies of a query as files of nobody, with a manifest for training and a report."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import fasteners
from rich.console import Console
from rich.progress import track

from pacs_cbir.embed.decode import Decoder
from pacs_cbir.errors import DiskUnavailable, InstanceError, InvalidQuery, SettingsError, VolumeError
from pacs_cbir.export.instance import Belonging, why_not, write_deidentified
from pacs_cbir.export.query import Order
from pacs_cbir.export.report import Done, Left, save_manifest, save_report, show
from pacs_cbir.settings import Settings
from pacs_cbir.store.exportable import ExportableInstance, ExportableSeries, instances_to_export, series_to_export
from pacs_cbir.store.pseudonyms import Pseudonyms, site_pseudonyms
from pacs_cbir.store.session import Database

MARK = ".export"
"""In the folder of an export, and of each series of it that is complete: what it was made from, as a token."""
REVISION = "2"
"""Of what an export makes of a file; another one makes all files anew."""
CHANGED = "it changed while it was exported: run the command again"


def export(order: Order, out: Path, settings: Settings, database: Database, console: Console) -> bool:
    """Write the series that are asked for and may leave; called again, it goes on where it stopped, writes what changed
    since, and takes out what is not asked for or may not leave any more.

    Args:
        out: a folder that is empty, not there yet, or an earlier export's of the same order.

    Returns:
        whether every series that was asked for has left.

    Raises:
        InvalidQuery: nothing here is asked for; an earlier export of the same order is empty now.
        SettingsError: `out` is something else, or another process writes it.
        DiskUnavailable: `out` cannot be written; what is in it is whole.
        DatabaseUnavailable, ManifestError.
    """
    pseudonyms = site_pseudonyms(settings)
    done = Done()
    with (
        _claimed(out, pseudonyms.token(repr(order))),
        Decoder(settings.decode_seconds, settings.decode_megabytes) as decoder,
    ):
        run = _Export(order, out, settings.instances_dir, database, decoder, pseudonyms)
        with database.transaction() as connection:
            chosen = series_to_export(connection, order.keys, fuzzy=order.fuzzy, any_of=order.labels)
        for series in track(chosen, "Exporting", console=Console(stderr=True)):
            reason = run.series(series, done.written)
            if reason is not None:
                done.left.append(Left(series.study_instance_uid, series.series_instance_uid, reason))
        done.removed = _remove_others(out, {path.parent for path in done.written.values()})
        rows, notes = save_manifest(database, pseudonyms, done.written, out, console)
        if rejected := sum(series.rejected for series in chosen):
            notes.append(f"left out: {rejected} instances that rejection notes took out of use")
        save_report(out, order, done, pseudonyms, [f"manifest: {len(rows)} rows", *notes])
    show(done, console)
    if not chosen:
        raise InvalidQuery("--query: nothing that is here matches it, so nothing was exported")
    return not done.left


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DiskUnavailable(f"{folder} cannot be written: {error.strerror or error}") from error


@contextmanager
def _claimed(out: Path, token: str) -> Iterator[None]:
    """`out` as this order's alone.

    Raises:
        SettingsError: it is something else, or another process writes it.
        DiskUnavailable.
    """
    _claim(out, token)
    lock = fasteners.InterProcessLock(out / MARK)
    with _writing(out):
        alone = lock.acquire(blocking=False)
    if not alone:
        raise SettingsError(f"another export writes {out}: wait for it, or name another folder")
    try:
        yield
    finally:
        lock.release()


def _claim(out: Path, token: str) -> None:
    mark = out / MARK
    with _writing(out):
        if not out.exists() or not any(out.iterdir()):
            out.mkdir(parents=True, exist_ok=True)
            mark.write_text(token)
        elif not mark.is_file() or mark.read_text() != token:
            raise SettingsError(
                f"{out} is no empty folder, and no export with this query, these options and this site's key: name "
                "one that is empty or does not exist yet"
            )


@dataclass(frozen=True)
class _Export:
    """One run."""

    order: Order
    out: Path
    instances_dir: Path
    database: Database
    decoder: Decoder
    pseudonyms: Pseudonyms

    def series(self, series: ExportableSeries, written: dict[str, Path]) -> str | None:
        """Write one series, as a whole or not at all.

        Args:
            written: file below the instances directory → what was made of it; this adds the series'.

        Returns:
            why it was left; None where it is there.
        """
        if series.excluded is not None:
            # The report leaves the site, and whoever writes a label may name someone in it.
            return "a label keeps its study out: pacs-cbir label show"
        if series.patients != 1:
            return "its study holds several patients: see pacs-cbir status"
        found = self._now(series)
        if not found:
            return "all of it was rejected" if series.rejected else CHANGED
        if any(instance.file is None for instance in found):
            return "its pixel data is no longer here: let the archive send it again"
        folder = self._folder(series, found[0])
        mark = self.pseudonyms.token(REVISION, repr(self.order), *(str(instance.file) for instance in found))
        if not _is_marked(folder, mark, len(found)):
            reason = self._write(series, found, folder, mark)
            if reason is not None:
                return reason
        for instance in found:
            written[str(instance.file)] = folder / f"{self.pseudonyms.uid(instance.sop_instance_uid)}.dcm"
        return None

    def _write(
        self, series: ExportableSeries, found: Sequence[ExportableInstance], folder: Path, mark: str
    ) -> str | None:
        partial = folder.with_name(f"{folder.name}.partial")
        sources = [self.instances_dir / str(instance.file) for instance in found]
        with _writing(folder):
            shutil.rmtree(partial, ignore_errors=True)
        try:
            reason = self.decoder.run(why_not, sources, self.order.clean_pixel)
            if reason is not None:
                return reason
            for instance, source in zip(found, sources, strict=True):
                owner = Belonging(
                    instance.issuer_of_patient_id,
                    instance.patient_id,
                    series.study_instance_uid,
                    series.series_instance_uid,
                )
                self.decoder.run(
                    write_deidentified, source, partial, owner, self.pseudonyms, self.order.retain_longitudinal
                )
        except (VolumeError, InstanceError) as error:
            return CHANGED if self._now(series) != found else str(error)
        if self._now(series) != found:
            return CHANGED
        with _writing(folder):
            (partial / MARK).write_text(mark)
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
        return None

    def _now(self, series: ExportableSeries) -> list[ExportableInstance]:
        with self.database.transaction() as connection:
            return instances_to_export(connection, series.row_id)

    def _folder(self, series: ExportableSeries, first: ExportableInstance) -> Path:
        name = self.pseudonyms.patient(first.issuer_of_patient_id, first.patient_id, series.study_instance_uid)
        return (
            self.out
            / name
            / self.pseudonyms.uid(series.study_instance_uid)
            / self.pseudonyms.uid(series.series_instance_uid)
        )


def _is_marked(folder: Path, mark: str, instances: int) -> bool:
    with _writing(folder):
        marked = (folder / MARK).is_file() and (folder / MARK).read_text() == mark
        return marked and sum(1 for _ in folder.glob("*.dcm")) == instances


def _remove_others(out: Path, kept: set[Path]) -> int:
    """Take out series that an earlier run wrote and this one did not; folders that no export made stay.

    Returns:
        how many series.
    """
    removed = 0
    with _writing(out):
        for folder in sorted(path.parent for path in out.glob(f"*/*/*/{MARK}")):
            if folder not in kept:
                shutil.rmtree(folder)
                removed += 1
        for partial in out.glob("*/*/*.partial"):
            shutil.rmtree(partial)
        for level in ("*/*", "*"):
            for folder in out.glob(level):
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
    return removed
