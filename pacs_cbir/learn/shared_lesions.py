"""Whether heat maps point at what two slices share: pairs of simulated patients with one and the same lesion."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pacs_cbir.dicom.volume import FrameReference, Plane, Volume
from pacs_cbir.embed.encoder import Encoder
from pacs_cbir.embed.heat_picture import heat_picture
from pacs_cbir.embed.network import FOREGROUND
from pacs_cbir.embed.preprocess import Slices, draw_slices
from pacs_cbir.learn.phantom import SEQUENCES, SimulatedPatient, simulate_patient


@dataclass(frozen=True)
class LesionHeat:
    """One slice of a pair of one MR sequence, and the heat on it.

    Attributes:
        pixels, lesion, heat: shape (size, size): grey levels in [0, 1], the true mask, what each pixel adds to the
            similarity.
        inside, outside: mean heat of the lesion's pixels, and of the head's others; the air round it has none.
    """

    sequence: str
    pair: int
    pixels: npt.NDArray[np.float32]
    lesion: npt.NDArray[np.bool_]
    heat: npt.NDArray[np.float32]

    @property
    def inside(self) -> float:
        return float(self.heat[self.lesion].mean())

    @property
    def outside(self) -> float:
        return float(self.heat[~self.lesion & (self.pixels > FOREGROUND)].mean())


def shared_lesion_heat(encoder: Encoder, *, pairs: int, seed: int) -> Iterator[list[LesionHeat]]:
    """Simulate pairs of heads with one lesion, and explain why their slices are alike: pair by pair.

    The one's slice is that with most of the lesion, as the poster chooses it; the other's is the most similar one, as
    the service finds it. Where that one does not show the lesion, nothing is shared, and the two are left out.
    """
    for pair in range(pairs):
        one = simulate_patient(seed, 2 * pair)
        two = simulate_patient(seed, 2 * pair + 1, glioma=one.parameters.glioma)
        yield [
            heat
            for sequence in SEQUENCES
            for heat in _explained(
                encoder, sequence, _draw(one, sequence, encoder), _draw(two, sequence, encoder), pair
            )
        ]


def table_of(heats: Sequence[LesionHeat]) -> str:
    """A markdown table: by sequence, the mean heat of the lesions' pixels against that of the heads' others."""
    lines = ["| sequence | slices | heat inside / outside | median | 5th percentile |", "|---|---|---|---|---|"]
    for name, figures in _figures(heats).items():
        lines.append(f"| {name} | {figures['slices']} | {figures['ratio']:.2f} | {figures['median']:.2f} | "
                     f"{figures['percentile5']:.2f} |")  # fmt: skip
    return "\n".join(lines)


def write_results(heats: Sequence[LesionHeat], encoder: str, seed: int, folder: Path) -> None:
    """Write explain.json, explain.md and explain.png, which shows the first pair of each sequence."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = 1 + max(heat.pair for heat in heats)
    described = {"encoder": encoder, "seed": seed, "pairs": pairs, "sequences": _figures(heats)}
    (folder / "explain.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    (folder / "explain.md").write_text(table_of(heats) + "\n", encoding="utf-8")
    firsts = {heat.sequence: heat.pair for heat in reversed(heats)}
    shown = [[heat for heat in heats if (heat.sequence, heat.pair) == first] for first in sorted(firsts.items())]
    rows = [np.hstack([heat_picture(heat.pixels, heat.heat, edge=256) for heat in two]) for two in shown]
    Image.fromarray(np.vstack([np.hstack(rows[k : k + 2]) for k in range(0, len(rows), 2)])).save(
        folder / "explain.png"
    )


def _figures(heats: Sequence[LesionHeat]) -> dict[str, dict[str, float]]:
    by_sequence = {name: [heat for heat in heats if heat.sequence == name] for name in SEQUENCES}
    figures = {}
    for name, own in {**by_sequence, "all": list(heats)}.items():
        if own:
            ratios = [heat.inside / heat.outside for heat in own]
            ratio = np.mean([heat.inside for heat in own]) / np.mean([heat.outside for heat in own])
            figures[name] = {
                "slices": len(own),
                "ratio": float(ratio),
                "median": float(np.median(ratios)),
                "percentile5": float(np.percentile(ratios, 5)),
            }
    return figures


def _explained(encoder: Encoder, sequence: str, one: Slices, two: Slices, pair: int) -> list[LesionHeat]:
    assert one.masks is not None and two.masks is not None  # noqa: S101, PT018  # both were drawn with them
    best = int(one.masks.sum(axis=(1, 2)).argmax())
    example, embeddings = encoder.embed(one.pixels[best : best + 1])[0], encoder.embed(two.pixels)
    found = int((embeddings @ example).argmax())
    if not two.masks[found].any():
        return []
    shown = np.stack([one.pixels[best], two.pixels[found]])
    compared = np.stack([embeddings[found], example])
    heats = encoder.heat(shown, compared, encoder.card.architecture.shares)
    lesions = one.masks[best], two.masks[found]
    return [LesionHeat(sequence, pair, *drawn) for drawn in zip(shown, lesions, heats, strict=True)]


def _draw(patient: SimulatedPatient, sequence: str, encoder: Encoder) -> Slices:
    array = patient.volumes[sequence]
    frames = tuple(FrameReference("", k + 1) for k in range(len(array)))
    volume = Volume(array, patient.affine, Plane.AXIAL, frames)
    return draw_slices(volume, encoder.card.preprocessing, patient.mask > 0)
