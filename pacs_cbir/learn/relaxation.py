"""Relaxation times of the head's tissues and the MR signal that follows from them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
import numpy.typing as npt

LONGITUDINAL_RELAXIVITY = 4.1
TRANSVERSE_RELAXIVITY = 4.6
"""Of gadopentetate in plasma at 37 °C and 1.5 T, per mmol/L and second (Rohrer et al., Invest Radiol 2005;40:715)."""


class Tissue(IntEnum):
    """What a voxel can be made of; the value is the row in an array of tissue fractions."""

    AIR = 0
    CSF = 1
    GREY = 2
    WHITE = 3
    BONE = 4
    MARROW = 5
    FAT = 6
    SOFT = 7
    MUCOSA = 8
    BLOOD = 9
    OEDEMA = 10
    SOLID = 11
    RIM = 12
    NECROSIS = 13


@dataclass(frozen=True)
class Relaxation:
    """One tissue at one field strength.

    Attributes:
        t1, t2: relaxation times in ms.
        proton_density: relative to water, 0 to 1.
        gadolinium: concentration of the contrast agent after its injection, in mmol/L.
    """

    t1: float
    t2: float
    proton_density: float
    gadolinium: float = 0.0

    def enhanced(self, gadolinium: float) -> Relaxation:
        """The tissue with `gadolinium` mmol/L of contrast agent in it: both relaxation rates rise linearly."""
        t1 = 1.0 / (1.0 / self.t1 + 1e-3 * LONGITUDINAL_RELAXIVITY * gadolinium)
        t2 = 1.0 / (1.0 / self.t2 + 1e-3 * TRANSVERSE_RELAXIVITY * gadolinium)
        return replace(self, t1=t1, t2=t2)


# Grey, white and proton densities at 1.5 T: BrainWeb (Kwan et al., IEEE Trans Med Imaging 1999;18:1085). Grey and
# white at 3 T: Wansapura et al., J Magn Reson Imaging 1999;9:531. Muscle: Stanisz et al., Magn Reson Med 2005;54:507.
# Fat's T1 and marrow: after de Bazelaire et al., Radiology 2004;230:652. CSF: near water at body temperature. Glioma,
# oedema and necrosis: round values inside the wide ranges of Just and Thelen, Radiology 1988;169:779.
# Two are apparent values: fast spin echo undoes the J-coupling that shortens fat's T2 (Henkelman et al., J Magn Reson
# Imaging 1992;2:533), and flowing blood loses its spin echo as if its T2 were short.
_RELAXATION: dict[float, dict[Tissue, Relaxation]] = {
    1.5: {
        Tissue.AIR: Relaxation(1.0, 1.0, 0.0),
        Tissue.CSF: Relaxation(4200, 2000, 1.0),
        Tissue.GREY: Relaxation(833, 83, 0.86, 0.02),
        Tissue.WHITE: Relaxation(500, 70, 0.77, 0.01),
        Tissue.BONE: Relaxation(500, 5, 0.1),
        Tissue.MARROW: Relaxation(450, 60, 0.55, 0.05),
        Tissue.FAT: Relaxation(343, 130, 0.9, 0.02),
        Tissue.SOFT: Relaxation(1008, 44, 0.9, 0.1),
        Tissue.MUCOSA: Relaxation(1000, 110, 0.9, 0.5),
        Tissue.BLOOD: Relaxation(1441, 25, 0.8, 1.2),
        Tissue.OEDEMA: Relaxation(1150, 150, 0.9),
        Tissue.SOLID: Relaxation(1100, 115, 0.88, 0.02),
        Tissue.RIM: Relaxation(1000, 105, 0.87),
        Tissue.NECROSIS: Relaxation(2300, 280, 0.95, 0.03),
    },
    3.0: {
        Tissue.AIR: Relaxation(1.0, 1.0, 0.0),
        Tissue.CSF: Relaxation(4300, 1800, 1.0),
        Tissue.GREY: Relaxation(1331, 110, 0.86, 0.02),
        Tissue.WHITE: Relaxation(832, 80, 0.77, 0.01),
        Tissue.BONE: Relaxation(600, 5, 0.1),
        Tissue.MARROW: Relaxation(500, 60, 0.55, 0.05),
        Tissue.FAT: Relaxation(382, 130, 0.9, 0.02),
        Tissue.SOFT: Relaxation(1412, 50, 0.9, 0.1),
        Tissue.MUCOSA: Relaxation(1350, 110, 0.9, 0.5),
        Tissue.BLOOD: Relaxation(1932, 25, 0.8, 1.2),
        Tissue.OEDEMA: Relaxation(1450, 180, 0.9),
        Tissue.SOLID: Relaxation(1400, 150, 0.88, 0.02),
        Tissue.RIM: Relaxation(1350, 135, 0.87),
        Tissue.NECROSIS: Relaxation(2700, 270, 0.95, 0.03),
    },
}


def relaxation(tissue: Tissue, field_strength: float) -> Relaxation:
    """Relaxation times of `tissue` at 1.5 or 3.0 tesla, before contrast agent.

    Raises:
        KeyError: for another field strength.
    """
    return _RELAXATION[field_strength][tissue]


@dataclass(frozen=True)
class Timing:
    """A spin echo's times in ms; with an inversion time it is an inversion recovery."""

    repetition: float
    echo: float
    inversion: float | None = None

    def signal(self, tissue: Relaxation) -> float:
        """Magnitude of the signal of `tissue` at this timing, 0 to 1."""
        recovered = 1.0 - math.exp(-self.repetition / tissue.t1)
        if self.inversion is not None:
            recovered = 1.0 - 2.0 * math.exp(-self.inversion / tissue.t1) + math.exp(-self.repetition / tissue.t1)
        return tissue.proton_density * abs(recovered) * math.exp(-self.echo / tissue.t2)


def nulling_inversion_time(t1: float, repetition: float) -> float:
    """The inversion time in ms at which tissue of relaxation time `t1` gives no signal."""
    return t1 * (math.log(2.0) - math.log1p(math.exp(-repetition / t1)))


def signals(timing: Timing, tissues: dict[Tissue, Relaxation], *, contrast: bool) -> npt.NDArray[np.float32]:
    """One signal for each Tissue, float32, shape (tissues,); with `contrast` the agent has arrived."""
    relaxations = (tissues[tissue] for tissue in Tissue)
    return np.array([timing.signal(r.enhanced(r.gadolinium) if contrast else r) for r in relaxations], np.float32)
