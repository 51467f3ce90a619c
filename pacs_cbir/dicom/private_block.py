"""Our private block (PS3.5 7.8.1): group 0075, private creator PACS_CBIR.

Of an answer, over HTTP and DIMSE alike:

    (0075,xx01)  FD  similarity        cosine, at most 1, higher is closer; of a study the mean over its sequences
    (0075,xx02)  FD  coverage          share of the example's sequences that were compared like with like, 0 to 1
    (0075,xx03)  LO  note              `outside-encoder-domain`: the encoder was not trained for such series;
                                      `slices-missing`: between others, they were rejected or never sent
    (0075,xx04)  LO  MR sequence       of a series: T1, T1CE, T2, FLAIR, …, unknown
    (0075,xx05)  UI  like              Series Instance UID of the example's series that it is like
    (0075,xx06)  UI  slice             of a series: SOP Instance UID of the picture to look at
    (0075,xx07)  UL  frame             its frame, counted from 1
    (0075,xx08)  UI  example's slice   SOP Instance UID of the example's picture that it is like
    (0075,xx09)  UL  example's frame   its frame, counted from 1
    (0075,xx0A)  FD  slice similarity  cosine of the two slices
    (0075,xx0B)  SL  days              of a study: from the first example's to this one, negative where it is older
    (0075,xx0C)  UR  report            of a study: the site's link to its report
    (0075,xx0D)  LO  parts             of a series: `lesion:0.812`, …: cosine of each part of the embeddings
    (0075,xx0E)  LO  labels            of a study: what a person has said of it, 1-n
    (0075,xx11)  UL  example file      the example's number in an upload, of a PNG or JPEG instead of xx08, xx09
    (0075,xx10)  SQ  compared series   of a study, best first: (0020,000E), xx01, xx03 to xx0A, xx0D

Of a C-FIND's identifier, each what the parameter in brackets is over HTTP:

    (0075,xx0E)  LO  labels            one of these, letter by letter (label)
    (0075,xx20)  UC  examples          `{study}`, `{study}/{series}`, `…/{instance}` or `…/{frame}`, 1-n (example)
    (0075,xx21)  UC  like              answers that were right, named like examples, 1-n (like)
    (0075,xx22)  UC  unlike            answers that were wrong, 1-n (unlike)
    (0075,xx23)  LO  sequences         look at these MR sequences alone, 1-n (sequence)
    (0075,xx24)  LO  sequence weights  `FLAIR:2`, 1-n (weights)
    (0075,xx25)  LO  part weights      `lesion:1`, 1-n (parts)
    (0075,xx26)  DS  least similarity  (min_similarity)
    (0075,xx27)  IS  limit             how many answers (limit)
    (0075,xx28)  CS  own patient       YES: the example's own patient may be answered (own_patient)
"""

from __future__ import annotations

PRIVATE_GROUP = 0x0075
PRIVATE_CREATOR = "PACS_CBIR"
SIMILARITY, COVERAGE, NOTE, SEQUENCE, LIKE, COMPARED_SERIES = 0x01, 0x02, 0x03, 0x04, 0x05, 0x10
SLICE, FRAME, EXAMPLE_SLICE, EXAMPLE_FRAME, SLICE_SIMILARITY = 0x06, 0x07, 0x08, 0x09, 0x0A
DAYS, REPORT, PARTS, LABELS, EXAMPLE_FILE = 0x0B, 0x0C, 0x0D, 0x0E, 0x11
EXAMPLES, KEY_LIKE, KEY_UNLIKE, KEY_SEQUENCES, KEY_WEIGHTS, KEY_PARTS = 0x20, 0x21, 0x22, 0x23, 0x24, 0x25
KEY_LEAST, KEY_LIMIT, KEY_OWN_PATIENT = 0x26, 0x27, 0x28
