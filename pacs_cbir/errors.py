"""The exception tree. No HTTP or DIMSE numbers here: each door owns one table that maps these to its protocol.

PacsCbirError
├── SettingsError            the configuration cannot work; says which setting
├── StoreError
│   ├── DatabaseUnavailable  Postgres does not answer
│   ├── SchemaOutdated       the schema is older than the code; names the command that upgrades it
│   ├── DiskUnavailable      the data directory cannot be written, or is full
│   │   └── DiskFull         what is free on the disk is the reserve; refused until there is room again
│   ├── PixelDataGone        the instance is known and its pixel data has left; says who sent it
│   ├── JobLost              a job's lease ran out and another worker has it
│   ├── IndexNotReady        the vector index is being loaded
│   ├── EncoderRefused       what was asked of an encoder of this installation cannot be; says why and what to do
│   └── EncoderMismatch      this process cannot embed with the encoder that is asked for
├── InstanceError            received bytes that cannot become an instance
│   ├── NotDicom             the bytes are not a DICOM data set
│   ├── InvalidIdentifier    a UID that is missing or malformed
│   └── WrongIdentifier      the data set's UIDs are not those of the request that carried it
├── CorrectionError          a correction that cannot be made
│   ├── UnknownPatient       nobody is known here by that identifier
│   ├── UnknownStudy         the study is not here
│   ├── DeletionPending      of a deletion something is left; says what
│   └── MergeRefused         two patients who cannot be made one: they were merged otherwise before
├── MessageError             an HL7 message that cannot be taken in
│   ├── UnreadableMessage    it is none, or a field that is needed is missing or malformed
│   └── UnsupportedMessage   it is of a kind that is not taken in here
├── VolumeError              instances that cannot become a volume; the series is parked or recorded with the reason
│   ├── DecodingError        pixel data that cannot be decoded, or that killed or outlived the decoder
│   ├── NotAVolume           geometry that is no regular stack of slices
│   ├── SeriesChanged        a series is not what it was embedded from any more; it will be embedded anew
│   └── NotEmbeddable        deliberately not embedded: localiser, derived map, not an MR image
├── Unhealthy                a part of this service does not do what it is there for; says what it answers
├── DemoFailed               the demonstration did not come to its end
├── BenchFailed              what was to be timed did not start, or answered with an error
├── InvalidCommitment        a storage commitment request that cannot be understood; says what is wrong with it
├── BackfillRuns             another process has the same PACS under way; says how to end it
├── PeerError                another system did not do its part: no association, no answer
│   ├── PeerAway             it does not answer at present; may be tried again
│   ├── PeerSilent           it is there, and did not answer this in time, or not to the end
│   └── PeerRefuses          it does not let this service ask or fetch; says what to set, there or here
├── CheckpointError          an encoder file that cannot be trusted or read
├── EncoderBusy              too much waits to be embedded in this process; may be tried again
├── ManifestError            rows of a data set that cannot be used; lists every one and says what to do
├── RecipeError              a training recipe or table that cannot work, or not on these data; says what to change
│   └── TableError           rows of a table that cannot work whatever the data; lists every one
├── NotMeasurable            data on which a ranking cannot be measured: no masks or labels, one patient alone
└── QueryError
    ├── InvalidQuery         a parameter that cannot be understood; says which and what is accepted
    ├── WrongLevel           a C-FIND whose Query/Retrieve Level or unique keys are missing or not the model's
    ├── UnreadableUpload     a file that came with the query is no picture that can be drawn; says which and why
    ├── UnknownExample       the example is not here
    ├── ExampleNotReady      the example is received and not yet embedded
    └── ExampleNotEmbedded   the example is here and has no embeddings; says why
        └── ExampleNotReindexed  the encoder that is asked has not looked at the example; names the command
"""

from __future__ import annotations

from collections.abc import Sequence


class PacsCbirError(Exception):
    """Base of all errors this package raises on purpose. The message never carries a patient's identity."""


class SettingsError(PacsCbirError):
    """The configuration cannot work."""


class StoreError(PacsCbirError):
    """Durable storage failed."""


class DatabaseUnavailable(StoreError):
    """Postgres does not answer; the operation may be tried again."""


class SchemaOutdated(StoreError):
    """The database's schema is not the one this version of the code needs."""


class DiskUnavailable(StoreError):
    """A folder that is written to cannot be: the data directory, or one that a command was given."""


class DiskFull(DiskUnavailable):
    """What is free on the data directory's disk is the reserve that PACS_CBIR_DISK_RESERVE_MEGABYTES sets."""


class PixelDataGone(StoreError):
    """An instance's attributes and embeddings are here, and its pixel data is not any more.

    Args:
        sent_by: the AE title that it came from.
        advice: what brings it back.
    """

    def __init__(self, sent_by: str, advice: str = "") -> None:
        super().__init__(f"the pixel data has left this service's cache; {sent_by} sent it{advice}")
        self.sent_by = sent_by


class JobLost(StoreError):
    """The lease ran out and the job was given to another worker, or its series was deleted."""


class IndexNotReady(StoreError):
    """The vector index is being loaded; the operation may be tried again."""


class EncoderRefused(StoreError):
    """What was asked of an encoder of this installation cannot be: its name, or its state, forbids it."""


class EncoderMismatch(StoreError):
    """This process cannot embed with the encoder that is asked for."""


class InstanceError(PacsCbirError):
    """Received bytes cannot become an instance."""


class NotDicom(InstanceError):
    """The bytes are not a DICOM data set."""


class InvalidIdentifier(InstanceError):
    """A UID is missing or malformed."""


class WrongIdentifier(InstanceError):
    """The data set's SOP Class or SOP Instance UID is not that of the request that carried it."""


class CorrectionError(PacsCbirError):
    """A correction cannot be made."""


class UnknownPatient(CorrectionError):
    """Nobody is known here by that identifier."""


class UnknownStudy(CorrectionError):
    """The study is not here."""


class DeletionPending(CorrectionError):
    """A patient's rows are deleted, and something of them is still there; the deletion can be gone on with."""


class MergeRefused(CorrectionError):
    """What is asked contradicts an earlier merge: the other way round, into a third patient, or of who is named."""


class MessageError(PacsCbirError):
    """An HL7 message cannot be taken in; the text says why, and nothing of what the message says."""


class UnreadableMessage(MessageError):
    """It is no HL7 message, or a field that is needed is missing or malformed."""


class UnsupportedMessage(MessageError):
    """It is of a kind that is not taken in here."""


class VolumeError(PacsCbirError):
    """Instances cannot become a volume."""


class DecodingError(VolumeError):
    """Pixel data cannot be decoded, or killed or outlived the decoder."""


class NotAVolume(VolumeError):
    """The geometry is no regular stack of slices."""


class SeriesChanged(VolumeError):
    """A series is not what it was embedded from any more; the operation may be tried again once it is embedded anew."""


class NotEmbeddable(VolumeError):
    """Deliberately not embedded: a localiser, a derived map, or no MR image at all."""


class Unhealthy(PacsCbirError):
    """A part of this service does not do what it is there for."""


class DemoFailed(PacsCbirError):
    """The demonstration did not come to its end."""


class BenchFailed(PacsCbirError):
    """What was to be timed did not start, or answered with an error."""


class InvalidCommitment(PacsCbirError):
    """A storage commitment request cannot be understood."""


class BackfillRuns(PacsCbirError):
    """Another process fetches from the same PACS."""


class PeerError(PacsCbirError):
    """Another system did not do its part."""


class PeerAway(PeerError):
    """Another system does not answer at present; the operation may be tried again."""


class PeerSilent(PeerError):
    """Another system is there, and did not answer in time, or not to the end; it may do so when less is asked."""


class PeerRefuses(PeerError):
    """Another system does not let this service ask or fetch, until something is set there or here."""


class CheckpointError(PacsCbirError):
    """An encoder's checkpoint cannot be trusted or read."""


class EncoderBusy(PacsCbirError):
    """Too much waits to be embedded in this process; the operation may be tried again."""


class ManifestError(PacsCbirError):
    """A data set's manifest, or what it names, cannot be used.

    Attributes:
        faults: what is wrong and what to do, each with its row where it has one.
    """

    def __init__(self, name: str, faults: Sequence[str] = ()) -> None:
        super().__init__("\n  ".join([f"{name} cannot be used:", *faults]))
        self.faults = tuple(faults)


class RecipeError(PacsCbirError):
    """A training recipe or a table of them cannot work, or not on the data it is given."""


class TableError(RecipeError):
    """Rows of a table that cannot be trained or measured, whatever the data.

    Attributes:
        faults: each with its row.
    """

    def __init__(self, title: str, faults: Sequence[str] = ()) -> None:
        super().__init__("\n  ".join([f"the table {title} cannot be used:", *faults]))
        self.faults = tuple(faults)


class NotMeasurable(PacsCbirError):
    """Data on which a ranking cannot be measured."""


class QueryError(PacsCbirError):
    """A query by example cannot be answered."""


class InvalidQuery(QueryError):
    """A query parameter cannot be understood."""


class WrongLevel(QueryError):
    """A C-FIND's Query/Retrieve Level, or the unique keys of the levels above it, are not what the model asks for."""


class UnreadableUpload(QueryError):
    """A file that came with the query cannot be drawn; the message has its number, and never its name."""


class UnknownExample(QueryError):
    """The example is not here."""


class ExampleNotReady(QueryError):
    """The example is received and not yet embedded.

    Attributes:
        retry_after: seconds after which the embedding can be expected.
    """

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ExampleNotEmbedded(QueryError):
    """The example is here and has no embeddings, and will not have any by itself."""


class ExampleNotReindexed(ExampleNotEmbedded):
    """The example is here, and came before the encoder that is asked, which has no job for it."""
