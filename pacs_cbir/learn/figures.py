"""What an encoder is worth on simulated patients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from pacs_cbir.embed.encoder import Encoder
from pacs_cbir.learn.cohort import Stack, Study
from pacs_cbir.learn.phantom import SEQUENCES


def measure(encoder: Encoder, studies: Sequence[Study]) -> dict[str, float]:
    """Figures of an encoder, and of grey-level histograms and chance beside it, on patients it has not seen.

    Two patients are relevant to one another by exp(-(distance of the tumours' places / 20 mm + difference of the
    logarithms of their radii / 0.5)). Studies are compared by the mean cosine of like sequences. Recall says how often
    the nearest FLAIR to a patient's T1 is the patient's own.
    """
    places, radii = np.stack([s.place for s in studies]), np.log([s.radius for s in studies])
    apart = np.linalg.norm(places[:, None] - places, axis=2) / 20 + np.abs(radii[:, None] - radii) / 0.5
    figures = {"patients": float(len(studies))}
    for skull, stripped in (("head", False), ("skull_stripped", True)):
        shown = [[stack for stack in study.stacks if stack.skull_stripped is stripped] for study in studies]
        learned = np.array([[encoder.pool(encoder.embed(s.pixels / 255)) for s in stacks] for stacks in shown])
        grey = np.array([[_histogram(stack) for stack in stacks] for stacks in shown])  # (patients, sequences, bins)
        alike = np.einsum("isd,jsd->ij", learned, learned)
        figures[f"{skull}_ndcg_5"] = _ndcg(alike, np.exp(-apart))
        figures[f"{skull}_ndcg_5_grey_histogram"] = _ndcg(np.einsum("isd,jsd->ij", grey, grey), np.exp(-apart))
        figures[f"{skull}_ndcg_5_chance"] = _ndcg(np.random.default_rng(0).random(apart.shape), np.exp(-apart))
        pairs = np.triu_indices(len(studies), 1)
        figures[f"{skull}_spearman"] = float(spearmanr(alike[pairs], -apart[pairs]).statistic)
        crossed = learned[:, SEQUENCES.index("T1")] @ learned[:, SEQUENCES.index("FLAIR")].T
        figures[f"{skull}_t1_to_flair_recall_1"] = float((crossed.argmax(axis=1) == np.arange(len(studies))).mean())
    return {name: round(figure, 4) for name, figure in figures.items()}


def _histogram(stack: Stack) -> npt.NDArray[np.float64]:
    counts = np.bincount(stack.pixels[stack.pixels > 0] // 4, minlength=64).astype(np.float64)
    return counts / np.linalg.norm(counts)


def _ndcg(similarity: npt.NDArray[np.floating], relevance: npt.NDArray[np.floating], k: int = 5) -> float:
    """Mean nDCG at k of the other patients in order of similarity (Järvelin & Kekäläinen 2002); chance is above 0."""
    discounts = 1 / np.log2(np.arange(2, k + 2))
    scores = []
    for i in range(len(similarity)):
        others = np.delete(np.arange(len(similarity)), i)
        ranked = others[np.argsort(-similarity[i, others])]
        gains, best = relevance[i, ranked][:k], -np.sort(-relevance[i, others])[:k]
        scores.append((gains * discounts[: len(gains)]).sum() / (best * discounts[: len(best)]).sum())
    return float(np.mean(scores))
