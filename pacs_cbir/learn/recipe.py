"""A recipe: everything that one training run is decided by, in a TOML file."""

from __future__ import annotations

import hashlib
import json
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pacs_cbir.embed.architecture import Architecture, Part
from pacs_cbir.embed.preprocess import Preprocessing
from pacs_cbir.errors import RecipeError

Kind = TypeVar("Kind", bound=BaseModel)


class Frozen(BaseModel):
    """Base of what a TOML file says: a word that it should not have is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Augmentation(Frozen):
    """How far each image is changed by itself; 0 leaves a change out.

    Attributes:
        flip: mirror left and right, half of the time; all views of a patient alike, since sides are not the same.
        turn: largest angle in radians.
        shift: largest share of half the picture.
        scale: largest natural logarithm of the size's factor.
        bend: usual displacement of an elastic deformation, share of half the picture.
        gamma, gain: largest natural logarithm of each.
        curve: usual natural logarithm of the contrast's factor at each of a few grey levels: a rising curve, as
            another scanner's timing would draw it.
        bias: usual natural logarithm of a smooth field that the grey levels are multiplied by.
        noise: largest standard deviation, share of the picture's median: its contrast is of that size, not of white's.
    """

    flip: bool = False
    turn: float = Field(default=0, ge=0, le=3.15)
    shift: float = Field(default=0, ge=0, le=1)
    scale: float = Field(default=0, ge=0, le=1)
    bend: float = Field(default=0, ge=0, le=1)
    gamma: float = Field(default=0, ge=0, le=1)
    gain: float = Field(default=0, ge=0, le=1)
    curve: float = Field(default=0, ge=0, le=2)
    bias: float = Field(default=0, ge=0, le=1)
    noise: float = Field(default=0, ge=0, le=1)


class Recipe(Frozen):
    """What one training run does. The defaults are those of supervised contrast by patient.

    Attributes:
        purpose, data, licences: what the checkpoint's card says for people.
        architecture: of the network; its parts are what the losses can train.
        size, field_of_view_mm: of the slices; see `Preprocessing`.
        init: "random" weights; "pretrained" on ImageNet: torchvision's, or a file with torchvision's names; "shipped":
            this package's own checkpoint. What a file does not hold keeps its random weights.
        epochs: 0 measures the encoder that the training would start from.
        coarse_epochs: the first of them, in which slices are shown at three quarters of their size: twice as fast.
        draws_a_stack: slices drawn of each stack an epoch; where nothing is contrasted, each of its slices once at
            most.
        shares: split of the manifest → its share of an epoch's draws, where a large data set would drown a small one;
            none: as they are. Not for what is contrasted.
        slices: which are drawn: the "best", those that show the "tumour", or "all".
        slices_a_view: how many make one view; the losses see the mean of their embeddings.
        positives: what belongs together: nothing ("none": no contrast), two views of one "picture" (SimCLR, Chen et
            al. 2020), of one "patient" or of one class "label" (Khosla et al. 2020), or, by degrees, what is alike by
            "relevance": a list-wise loss (Cao et al. 2007) against the measure itself, in need of masks.
        groups_a_batch, views: a batch is so many pictures, patients or classes, with so many views of each.
        memory: embeddings of earlier batches to compare with (cross-batch memory, Wang et al. 2020); 0: none.
        temperature: of the similarities.
        target_temperature: of relevances: the smaller, the more the most relevant alone counts.
        contrast, reconstruction, lesion: what each loss counts; 0 leaves it out.
        masks: the lesion loss's: those that are "given", or, for data without annotation, those that the encoder which
            the training starts from has "drawn"; see `pacs_cbir.learn.drawn_masks`.
        labels: what a contrast of the `appearance` part by class counts, beside the others, of rows with a label. Where
            no row has one nothing teaches that part, and it is left out.
        pooling: what of a stack is compared: its "best" slice, the "mean" of all, or each with each ("late"
            interaction; Khattab & Zaharia 2020).
        parts: part → what it counts where the encoder is measured, parts not named nothing; none: as trained.
        dimension: numbers that embeddings are projected to where the encoder is measured, by principal components of
            those it was trained on; 0: all.
        a_network_a_sequence: train one for each MR sequence.
        learning_rate: the largest of the one-cycle schedule (Smith & Topin 2019).
    """

    purpose: str = "Trained with `pacs-cbir train`, for measuring. Not for clinical use."
    data: str = ""
    licences: tuple[str, ...] = ()
    architecture: Architecture = Architecture(appearance=512, weights={"appearance": 1})
    size: int = Field(default=128, ge=32, multiple_of=32)
    field_of_view_mm: float = Field(default=Preprocessing.field_of_view_mm, gt=0)
    init: Literal["random", "pretrained", "shipped"] = "random"
    epochs: int = Field(default=10, ge=0)
    draws_a_stack: int = Field(default=1, ge=1)
    slices: Literal["best", "tumour", "all"] = "best"
    slices_a_view: int = Field(default=1, ge=1)
    positives: Literal["none", "picture", "patient", "label", "relevance"] = "patient"
    groups_a_batch: int = Field(default=16, ge=1)
    views: int = Field(default=2, ge=1)
    memory: int = Field(default=0, ge=0)
    temperature: float = Field(default=0.1, gt=0)
    target_temperature: float = Field(default=0.1, gt=0)
    contrast: float = Field(default=1, ge=0)
    reconstruction: float = Field(default=0, ge=0)
    lesion: float = Field(default=0, ge=0)
    masks: Literal["given", "drawn"] = "given"
    labels: float = Field(default=0, ge=0)
    coarse_epochs: int = Field(default=0, ge=0)
    shares: dict[str, float] = Field(default_factory=dict)
    augmentation: Augmentation = Augmentation()
    pooling: Literal["best", "mean", "late"] = "best"
    parts: dict[Part, float] = Field(default_factory=dict)
    dimension: int = Field(default=0, ge=0)
    a_network_a_sequence: bool = False
    learning_rate: float = Field(default=5e-4, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        contrasted = self.positives in {"picture", "patient", "label"}
        if contrasted and (self.views < 2 or self.groups_a_batch < 2):
            raise ValueError("contrast needs views = 2 or more, and groups_a_batch = 2 or more")
        if self.memory and (not contrasted or self.memory < self.groups_a_batch * self.views):
            raise ValueError("memory holds a batch (groups_a_batch * views) or more, of a contrast by like and unlike")
        if self.lesion and not self.architecture.lesion_grid:
            raise ValueError("the lesion loss needs architecture.lesion_grid: without it nothing draws a lesion")
        if self.labels and not self.architecture.appearance:
            raise ValueError("the labels loss needs architecture.appearance: that is the part it contrasts")
        if self.shares and contrasted:
            raise ValueError("shares go with positives = none or relevance: a contrast draws by what belongs together")
        if self.slices_a_view > 1 and (self.lesion or self.reconstruction or self.positives == "relevance"):
            raise ValueError("slices_a_view > 1 goes with a contrast alone: the other losses are of single slices")
        if self.parts and (min(self.parts.values()) < 0 or not any(self.parts.values())):
            raise ValueError("parts needs weights of 0 or more, and one above 0")
        if self.dimension and self.pooling != "best":
            raise ValueError('dimension goes with pooling = "best"')
        if self.epochs and not (
            self.lesion or self.labels or self.reconstruction or (self.positives != "none" and self.contrast)
        ):
            raise ValueError("nothing is trained: give positives, lesion or reconstruction, or set epochs = 0")
        return self

    @model_validator(mode="after")
    def _check_masks(self) -> Self:
        if self.masks == "drawn" and (not self.lesion or self.init == "random"):
            raise ValueError('masks = "drawn" goes with a lesion loss, and with an init that draws: not "random"')
        return self

    @property
    def training(self) -> dict[str, Any]:
        """What the weights depend on: all settings but those of how they are measured and what is said of them."""
        return self.model_dump(mode="json", exclude={"parts", "dimension", "pooling", "purpose", "data", "licences"})

    @property
    def preprocessing(self) -> Preprocessing:
        """How the slices are drawn that it trains on."""
        return Preprocessing(field_of_view_mm=self.field_of_view_mm, size=self.size)

    def taught(self, *, labels: bool) -> Recipe:
        """The recipe for data with or without labels; see `labels`."""
        sizes = self.architecture.sizes
        if labels or not self.labels or len(sizes) == 1:
            return self
        weights = {part: weight for part, weight in self.architecture.weights.items() if part != "appearance"}
        architecture = self.architecture.model_copy(update={"appearance": 0, "weights": weights})
        return self.model_copy(update={"architecture": architecture, "labels": 0.0})

    def changed(self, changes: dict[str, Any]) -> Recipe:
        """The recipe with some settings changed, those of a nested part one by one.

        Raises:
            RecipeError: a setting is unknown or out of range.
        """
        merged = self.model_dump()
        for name, value in changes.items():
            nested = isinstance(value, dict) and isinstance(merged.get(name), dict)
            # The parts of an architecture have weights each: half an architecture says nothing.
            merged[name] = {**merged[name], **value} if nested and name != "architecture" else value
        return validate(Recipe, merged, "a changed recipe")


def read_recipe(path: Path) -> Recipe:
    """Read a recipe; a bare name, such as `ours`, is one of the package's own.

    Raises:
        RecipeError: the file is missing, or is no recipe.
    """
    return validate(Recipe, read_toml(path, "recipes"), str(path))


def digest(*parts: object) -> str:
    """SHA-256 of what pydantic or JSON can write, 64 hex digits: equal for equal parts alone."""
    plain = [part.model_dump(mode="json") if isinstance(part, BaseModel) else part for part in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def read_toml(path: Path, own: Literal["recipes", "tables"]) -> dict[str, Any]:
    """A TOML file, or the package's own of that name.

    Raises:
        RecipeError: neither is there, or it is no TOML.
    """
    folder = Path(str(resources.files("pacs_cbir.learn"))) / own
    names = ", ".join(sorted(file.stem for file in folder.glob("*.toml")))
    if not path.name:
        raise RecipeError(f"'{path}' names no file; the package's own {own} are: {names}")
    source = path if path.suffix else path.with_suffix(".toml")
    try:
        if not source.exists():  # a table's own folder first, then the package's
            source = folder / source.name
        return tomllib.loads(source.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError(f"{path} is not there; the package's own {own} are: {names}") from error
    except (OSError, ValueError) as error:  # of its bytes, of TOML, or of a path that the system refuses
        raise RecipeError(f"{path} cannot be read: {error}") from error


def validate(kind: type[Kind], content: dict[str, Any], source: str) -> Kind:
    """The content as what it should be.

    Raises:
        RecipeError: it is not; lists each fault.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'as a whole'}: {e['msg']}" for e in error.errors())
        raise RecipeError(f"{source}: {faults}") from error
