"""An encoder on disk: weights as safetensors, and beside them a card in JSON that says what they are.

Nothing here is unpickled, and torch is not imported: whoever only asks which encoder is current stays light.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from pacs_cbir.embed.architecture import Architecture
from pacs_cbir.embed.preprocess import REVISION, Preprocessing
from pacs_cbir.embed.whole_file import whole_file
from pacs_cbir.errors import CheckpointError

DEFAULT_NAME = "gliomas-2"
PATIENT_DIGITS = 12
"""Of a patient's digest in hexadecimal: 48 bits, so that among thousands no two meet by chance."""


_Cosine = Annotated[float, Field(ge=-1, le=1)]


class _CardPart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Domain(_CardPart):
    """What the encoder was trained for, in the words of `body_part` and `Sequence`; nothing else is claimed."""

    body_parts: tuple[str, ...]
    sequences: tuple[str, ...]


class Training(_CardPart):
    """Where the weights come from.

    Attributes:
        patient_digests: whom the weights were trained on: salt → digests, sorted; one salt for each training that led
            here. None where it is not known. A patient who goes by several names has a digest of each. Whoever knows a
            name can ask for it: this hides no patient of a manifest with real names.
        run: SHA-256 of recipe, data, seed, device and the weights it started from: equal for the same training alone;
            empty where it is not known.
    """

    method: str
    data: str
    licences: tuple[str, ...]
    patients: int
    epochs: int
    seed: int
    settings: dict[str, float]
    date: date
    patient_digests: dict[str, tuple[str, ...]] | None = None
    run: str = ""

    def trained_on(self, patients: Collection[str]) -> set[str] | None:
        """Those of some patients whom the weights were trained on, as far as they are named alike; None: not known."""
        if self.patient_digests is None:
            return None
        known = [(salt, set(digests)) for salt, digests in self.patient_digests.items()]
        return {patient for patient in patients for salt, digests in known if _digest_of(patient, salt) in digests}


class Card(_CardPart):
    """What a checkpoint is, for the program and for people.

    Attributes:
        purpose: what it may be used for, in plain words.
        unrelated: MR sequence → median cosine of the whole series of two patients whom it was trained on: what is less
            alike is not alike. Empty where it was not measured.
        unrelated_slices: the same of a slice of the one and the nearest slice of the other.
        figures: what was measured, each under a name that says on what.
        weights_sha256: of the safetensors file.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    purpose: str
    architecture: Architecture
    preprocessing: Preprocessing
    domain: Domain
    training: Training
    unrelated: dict[str, _Cosine] = Field(default_factory=dict)
    unrelated_slices: dict[str, _Cosine] = Field(default_factory=dict)
    figures: dict[str, float]
    weights_sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")

    def in_domain(self, sequence: str, body_part: str) -> bool:
        """Whether the encoder was trained for such series."""
        return sequence in self.domain.sequences and body_part.strip().upper() in self.domain.body_parts


@dataclass(frozen=True)
class Checkpoint:
    """A card and the weights it belongs to: torch's parameter names → arrays of float16, float32 or int64."""

    card: Card
    weights: Mapping[str, npt.NDArray[np.generic]]

    def identity(self, precision: str) -> str:
        """Whose an embedding is: equal only for equal weights, preprocessing and arithmetic. 64 hex digits.

        Args:
            precision: the arithmetic the network runs in, such as "float32" or "bfloat16".
        """
        parts = {
            "weights": self.card.weights_sha256,
            "architecture": self.card.architecture.model_dump(),
            "preprocessing": asdict(self.card.preprocessing),
            "precision": precision,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def default_checkpoint_path() -> Path:
    """The checkpoint that comes with the package."""
    return Path(str(resources.files("pacs_cbir.embed"))) / "checkpoints" / f"{DEFAULT_NAME}.safetensors"


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a .safetensors file and the card of the same name with .json.

    Whether the weights fit the card's architecture is seen where the network is built, in `Encoder`.

    Raises:
        CheckpointError: either file is missing, cannot be read, or is not what the card says.
    """
    card_path = path.with_suffix(".json")
    try:
        described = card_path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"the card of {path.name} cannot be read: {error.strerror}; it lies beside it, as {card_path.name}"
        ) from error
    if rb"\u0000" in described:
        raise CheckpointError(f"{card_path} is no checkpoint's card: it holds a NUL character")
    try:
        card = Card.model_validate_json(described)
    except ValidationError as error:
        raise CheckpointError(
            f"{card_path} is no checkpoint's card: {_faults(error)}; correct it, or copy both files again"
        ) from error
    return with_weights(card, path)


def card_of(described: Mapping[str, object]) -> Card:
    """The card that was kept as JSON.

    Raises:
        CheckpointError: it is none of this version's.
    """
    try:
        return Card.model_validate(described)
    except ValidationError as error:
        raise CheckpointError(f"the encoder's card is none of this version's: {_faults(error)}") from error


def with_weights(card: Card, path: Path) -> Checkpoint:
    """A card and the .safetensors file that it describes.

    Raises:
        CheckpointError: the file is missing, cannot be read, or is not what the card says.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != card.weights_sha256:
        raise CheckpointError(f"{path} is not the file its card describes: the SHA-256 differs; copy both files again")
    if card.preprocessing.revision != REVISION:
        raise CheckpointError(
            f"the card of {card.name} asks for preprocessing {card.preprocessing.revision}, this version of pacs-cbir "
            f"has {REVISION}; take a checkpoint that belongs to it"
        )
    try:
        weights = load(content)
    except (SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} holds no weights that can be read: {error}") from error
    if broken := _not_finite(weights):
        raise CheckpointError(f"{path} holds weights that are not finite: {', '.join(broken)}")
    return Checkpoint(card, weights)


def _not_finite(weights: Mapping[str, npt.NDArray[np.generic]]) -> list[str]:
    return [name for name, weight in weights.items() if not np.isfinite(weight).all()]


def _faults(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, one['loc'])) or 'as a whole'}: {one['msg'].removeprefix('Value error, ')}"
        for one in error.errors()
    )


def save_checkpoint(
    path: Path, card: Card, weights: Mapping[str, npt.NDArray[np.generic]], patients: Collection[str] = ()
) -> Checkpoint:
    """Write weights and card, the card with the weights' SHA-256.

    Args:
        patients: trained on, beside those that the card names already; their digests are salted with the SHA-256.
            Where the card does not know those, it stays so.

    Raises:
        CheckpointError: a weight is not finite.
        DiskUnavailable: the files cannot be written.
    """
    if broken := _not_finite(weights):
        raise CheckpointError(f"weights that are not finite are not saved: {', '.join(broken)}")
    # safetensors writes an array's memory as it lies, and channels_last is not in the order its shape says.
    content = save({name: np.ascontiguousarray(weight) for name, weight in weights.items()})
    sha256 = hashlib.sha256(content).hexdigest()
    training = card.training
    # Where it is not known who came before, these patients would pass for all there were.
    if patients and training.patient_digests is not None:
        own = tuple(sorted(_digest_of(patient, sha256) for patient in patients))
        training = training.model_copy(update={"patient_digests": {**training.patient_digests, sha256: own}})
    described = card.model_copy(update={"weights_sha256": sha256, "training": training})
    with whole_file(path) as file:
        file.write(content)
    # The card last: where it is, its weights are whole.
    with whole_file(path.with_suffix(".json")) as file:
        file.write((described.model_dump_json(indent=2) + "\n").encode())
    return Checkpoint(described, dict(weights))


def _digest_of(patient: str, salt: str) -> str:
    return hashlib.sha256(f"{salt}\0{patient}".encode()).hexdigest()[:PATIENT_DIGITS]
