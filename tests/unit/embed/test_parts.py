from __future__ import annotations

import numpy as np
import pytest

from pacs_cbir.embed.architecture import Architecture, Part
from pacs_cbir.embed.parts import Vectors, cosines, pool, slice_weights, weighed

ARCHITECTURE = Architecture(
    appearance=3, lesion_grid=2, grey_levels=4, weights={"appearance": 1, "lesion": 2, "grey": 5}
)


def embeddings(count: int, seed: int = 0) -> Vectors:
    dice = np.random.default_rng(seed)
    vectors = np.zeros((count, ARCHITECTURE.embedding_dimension))
    for part, place in ARCHITECTURE.places.items():
        own = np.abs(dice.standard_normal((count, place.stop - place.start))) + 0.01
        vectors[:, place] = own / np.linalg.norm(own, axis=1, keepdims=True) * ARCHITECTURE.shares[part] ** 0.5
    return vectors.astype(np.float32)


def pairs(part: Part, one: Vectors, two: Vectors) -> Vectors:
    place = ARCHITECTURE.places[part]
    product: Vectors = one[:, place] @ two[:, place].T / ARCHITECTURE.shares[part]
    return product


def test_products_with_a_weighed_query_are_the_weighted_mean_of_the_parts_cosines() -> None:
    one, two = embeddings(4), embeddings(5, seed=1)
    found = weighed(one, ARCHITECTURE, {"lesion": 3, "grey": 1}) @ two.T
    np.testing.assert_allclose(found, (3 * pairs("lesion", one, two) + pairs("grey", one, two)) / 4, atol=1e-6)
    assert (weighed(one[0], ARCHITECTURE, {"grey": 7})[: ARCHITECTURE.places["grey"].start] == 0).all()


def test_the_cards_own_weights_change_nothing() -> None:
    vectors = embeddings(4)
    np.testing.assert_allclose(weighed(vectors, ARCHITECTURE, ARCHITECTURE.shares), vectors, atol=1e-6)


def test_a_moved_querys_parts_keep_their_weights() -> None:
    moved = weighed(3 * embeddings(1) - embeddings(1, seed=1), ARCHITECTURE, ARCHITECTURE.shares)
    for part, place in ARCHITECTURE.places.items():
        assert np.linalg.norm(moved[:, place]) == pytest.approx(ARCHITECTURE.shares[part] ** 0.5, abs=1e-6)


def test_a_part_that_vanished_is_no_number_that_is_none() -> None:
    assert np.isfinite(weighed(np.zeros_like(embeddings(1)), ARCHITECTURE, ARCHITECTURE.shares)).all()


def test_slices_count_by_their_lesion_and_pooled_parts_keep_their_length() -> None:
    vectors = embeddings(3)
    place = ARCHITECTURE.places["lesion"]
    lesions = np.array([[0, 0, 0, 0, 1], [1, 0, 0, 0, 0.05], [1, 1, 1, 1, 0.05]])
    lesions = lesions / np.linalg.norm(lesions, axis=1, keepdims=True) * ARCHITECTURE.shares["lesion"] ** 0.5
    vectors[:, place] = lesions
    np.testing.assert_allclose(slice_weights(vectors, ARCHITECTURE), np.array([10, 11, 14]) / 35, rtol=1e-5)
    pooled = pool(vectors, ARCHITECTURE)
    assert np.linalg.norm(pooled[place]) == pytest.approx(ARCHITECTURE.shares["lesion"] ** 0.5)
    assert np.linalg.norm(pooled) == pytest.approx(1)


def test_cosines_by_part() -> None:
    ones, others = embeddings(3), embeddings(3, seed=1)
    shares = ARCHITECTURE.shares
    for found, one, other in zip(cosines(ones, others, ARCHITECTURE), ones, others, strict=True):
        assert found == {
            part: pytest.approx(float(pairs(part, one[None], other[None])[0, 0]), abs=1e-6)
            for part in ARCHITECTURE.sizes
        }
        whole = sum(shares[part] * cosine for part, cosine in found.items())
        assert whole == pytest.approx(float(one @ other), abs=1e-6)
    asked = weighed(ones, ARCHITECTURE, {"grey": 1})
    assert [set(found) for found in cosines(asked, others, ARCHITECTURE)] == [{"grey"}] * 3
    assert max(cosine for found in cosines(ones, ones, ARCHITECTURE) for cosine in found.values()) <= 1


def test_a_changed_architecture_has_parts_of_its_own() -> None:
    assert list(ARCHITECTURE.places) == ["appearance", "lesion", "grey"]
    changed = ARCHITECTURE.model_copy(update={"appearance": 0, "weights": {"lesion": 3, "grey": 1}})
    assert changed.places == {"lesion": slice(0, 5), "grey": slice(5, 9)}
    assert changed.shares == {"lesion": 0.75, "grey": 0.25}
    assert changed == Architecture(lesion_grid=2, grey_levels=4, weights={"lesion": 3, "grey": 1})
