"""What is to be done for one series, and what it comes to: drawn in the decoder child, embedded here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from pydicom.uid import UID

from pacs_cbir.dicom.frames import MR_IMAGE_SOP_CLASSES
from pacs_cbir.dicom.rules import SiteRules
from pacs_cbir.embed.decode import Decoder, DrawnStack
from pacs_cbir.embed.encoder import Encoder
from pacs_cbir.embed.preprocess import Preprocessing
from pacs_cbir.settings import Settings
from pacs_cbir.store import embeddings
from pacs_cbir.store.embeddings import NewStack, SliceEmbedding


@dataclass(frozen=True)
class SeriesPlan:
    """Encoders for a series, and what is being drawn for them.

    Attributes:
        encoders: that embed the series here, by their rows' ids.
        elsewhere: rows of those that are to embed it too, and cannot here.
        no_images: what of the series is no MR image.
        drawing: preprocessing → what waits for the drawn stacks.
    """

    encoders: Mapping[int, Encoder]
    elsewhere: frozenset[int]
    no_images: tuple[NewStack, ...]
    drawing: Mapping[Preprocessing, Callable[[], list[DrawnStack]]]

    def embed(self) -> dict[int, list[NewStack]]:
        """What each encoder finds in the series, by its row; waits for what is being drawn.

        Raises:
            DecodingError, VolumeError, InstanceError: it cannot be drawn.
        """
        found = {encoder_id: list(self.no_images) for encoder_id in self.encoders}
        for preprocessing, drawn in self.drawing.items():
            stacks = drawn()
            for encoder_id, encoder in self.encoders.items():
                if encoder.card.preprocessing == preprocessing:
                    found[encoder_id] += [_embed_stack(stack, encoder) for stack in stacks]
        return found


def start(
    files: Mapping[str, tuple[str, str]],
    loaded: Mapping[int, Encoder],
    elsewhere: frozenset[int],
    decoder: Decoder,
    settings: Settings,
    *,
    rules: SiteRules,
    with_thumbnails: bool,
) -> SeriesPlan:
    """Start drawing a series, once for all encoders of one preprocessing.

    Args:
        files: as `embeddings.series_files` has them.
        loaded, elsewhere: as the plan has them.
        rules: the site's, of which headers are which sequence.
    """
    images = {uid: file for uid, (sop_class, file) in files.items() if sop_class in MR_IMAGE_SOP_CLASSES}
    others = {uid: sop_class for uid, (sop_class, _) in files.items() if sop_class not in MR_IMAGE_SOP_CLASSES}
    paths = embeddings.instance_paths(settings.instances_dir, images.values())
    different = {one.card.preprocessing for one in loaded.values()} if images else set()
    return SeriesPlan(
        encoders=loaded,
        elsewhere=elsewhere,
        no_images=tuple(_not_an_image(sop_class, others) for sop_class in sorted(set(others.values()))),
        drawing={one: decoder.draw(paths, one, rules, with_thumbnails=with_thumbnails) for one in different},
    )


def _embed_stack(stack: DrawnStack, encoder: Encoder) -> NewStack:
    vectors: tuple[SliceEmbedding, ...] = ()
    if stack.slices is not None:
        slices = encoder.embed(stack.slices.pixels)
        whole = SliceEmbedding(
            embeddings.WHOLE_STACK, "", 0, float(np.mean(stack.slices.positions_mm)), encoder.pool(slices)
        )
        vectors = (
            whole,
            *(
                SliceEmbedding(number, frame.sop_instance_uid, frame.frame_number, float(position), vector)
                for number, (frame, position, vector) in enumerate(
                    zip(stack.slices.frames, stack.slices.positions_mm, slices, strict=True), start=1
                )
            ),
        )
    return NewStack(
        sequence=stack.sequence,
        plane=None if stack.slices is None else stack.slices.plane.value,
        body_part=stack.body_part,
        in_domain=encoder.card.in_domain(stack.sequence, stack.body_part),
        not_embedded=stack.not_embedded,
        separated_by=stack.separated_by,
        evidence=stack.evidence,
        sop_instance_uids=stack.sop_instance_uids,
        embeddings=vectors,
        thumbnails=stack.thumbnails,
        missing_slices=stack.missing_slices,
    )


def _not_an_image(sop_class_uid: str, others: dict[str, str]) -> NewStack:
    return NewStack(
        sequence="unknown",
        plane=None,
        body_part="",
        in_domain=False,
        not_embedded=f"not embedded: {UID(sop_class_uid).name}",
        separated_by={},
        evidence={},
        sop_instance_uids=tuple(uid for uid, kind in others.items() if kind == sop_class_uid),
        embeddings=(),
    )
