"""What a network is made of, as its card says; torch is not imported."""

from __future__ import annotations

from functools import cached_property
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Part = Literal["appearance", "lesion", "shape", "grey"]
LARGEST_DIMENSION = 512


class Architecture(BaseModel):
    """The network: one grey channel in, an embedding made of parts out.

    Attributes:
        appearance: numbers in the part of that name; 0 leaves it out, as for the others.
        lesion_grid: cells along an edge of the grid that lesions are compared on; with it comes the lesion head.
        shape_landmarks: landmarks of the kernel in which lesions' shapes are compared.
        grey_levels: bins of the histogram.
        weights: what each part counts in the similarity; only their ratios matter.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    network: Literal["resnet18"] = "resnet18"
    appearance: int = Field(default=0, ge=0)
    lesion_grid: int = Field(default=0, ge=0)
    shape_landmarks: int = Field(default=0, ge=0)
    grey_levels: int = Field(default=0, ge=0)
    weights: dict[Part, float]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.shape_landmarks and not self.lesion_grid:
            raise ValueError("shape_landmarks needs a lesion_grid: the shape is the lesion's")
        if not 2 <= self.embedding_dimension <= LARGEST_DIMENSION:
            raise ValueError(f"an embedding has 2 to {LARGEST_DIMENSION} numbers, not {self.embedding_dimension}")
        if set(self.weights) != set(self.sizes) or min(self.weights.values()) <= 0:
            raise ValueError(f"weights needs a positive number for each of: {', '.join(self.sizes)}")
        return self

    def __copy__(self) -> Self:
        # What was derived from the values is not taken along: `model_copy` changes them.
        return self.model_construct(**{name: getattr(self, name) for name in type(self).model_fields})

    @cached_property
    def sizes(self) -> dict[Part, int]:
        """Numbers in each part, in the order in which they follow one another in an embedding."""
        sizes: dict[Part, int] = {
            "appearance": self.appearance,
            "lesion": self.lesion_grid and self.lesion_grid**2 + 1,
            "shape": self.shape_landmarks and self.shape_landmarks + 1,
            "grey": self.grey_levels,
        }
        return {part: size for part, size in sizes.items() if size}

    @property
    def embedding_dimension(self) -> int:
        """Numbers in an embedding."""
        return sum(self.sizes.values())

    @cached_property
    def shares(self) -> dict[Part, float]:
        """The weights, with a sum of 1."""
        total = sum(self.weights.values())
        return {part: self.weights[part] / total for part in self.sizes}

    @cached_property
    def places(self) -> dict[Part, slice]:
        """Where each part is in an embedding."""
        places, start = {}, 0
        for part, size in self.sizes.items():
            places[part] = slice(start, start + size)
            start += size
        return places
