"""Words that vendors and hospitals use in descriptions, in the languages they write them in."""

from __future__ import annotations

import re
import unicodedata


def spaced(text: str) -> str:
    """Lower case, without accents, words parted by single spaces: `Ax_T2-FLAIR` → `ax t2 flair`. Keeps `*` and `+`."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    # Camel case and digits glued to words: `T1wPost`, `t1sagknee` stays one word and is searched within.
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", plain)
    return re.sub(r"[^a-z0-9*+]+", " ", parted.lower().replace("ß", "ss")).strip()


def _any(*alternatives: str) -> re.Pattern[str]:
    return re.compile("|".join(alternatives))


LOCALISER = _any(
    r"(^|; )loc\b", r"\b(3|three) ?(plane|pl) ?loc\b", r"locali[sz]", r"lokali", r"scout", r"\bsurvey",
    r"\bplan ?scan\b", r"\b(3|three) ?(plane|pl|ebenen)\b", r"topogram", r"reperage", r"smart ?brain", r"\baahead",
    r"\bpilot\b", r"ubersicht", r"localizador", r"\blocator\b",
)  # fmt: skip

# Contrasts that are none of the sequences below.
OTHER_CONTRASTS = _any(
    r"\bstir\b", r"\btof\b", r"\bangio", r"\bmra\b", r"\bmrv\b", r"\binhance", r"\bpca?3d\b", r"\bpcasl\b", r"\basl\b",
    r"\bpasl\b", r"\bperf(usion)?\b", r"\bdsc\b", r"\bdce\b", r"field ?map", r"\bb0 ?map", r"fieldmap", r"\bfmap\b",
    r"\bmag ?transfer\b", r"\bqsm\b", r"\bmrs\b", r"\bspectro", r"\bciss\b", r"\bfiesta", r"\btrufi", r"\btrue ?fisp",
    r"\bdrive\b", r"\bb ?ffe\b", r"\bbtfe\b", r"time of flight", r"phase ?contrast", r"\bqflow\b", r"\btwist\b",
    r"\btricks\b", r"\bdyn(ami\w*)?\b", r"\bsub\b", r"subtr", r"sustrac", r"sottraz", r"\bm(in)? ?ip\b", r"\bci3d",
    r"\beadc\b", r"exponential", r"\bmolli\b", r"look ?locker", r"\binv ?[12]\b", r"\bt[12](w| ?star)? ?map",
    r"\bt[12] images\b",
    r"\bt2 ?prep", r"\bcosmic\b", r"\btirm\b(?!.*(dark|flair))", r"\bscreen ?save\b",
    # Of a Dixon series these two are no T1: the fat, and the phase in which water and fat cancel out.
    r"(^|; )fat\b(?! ?(sat|sup))", r"\bdixon\b.* (f|fat|opp)\b", r"\bfat only\b", r"\bout ?(of )?phase",
    r"\bopp(osed)? ?phase",
)  # fmt: skip

NO_WEIGHTING = _any(
    r"\b[ctls][0-9]{1,2} (to |bis |a )?[ctls][0-9]{1,2}\b", r"\bt[12] (level|vertebra|rib|spine|body|root|fracture)",
    r"\b(level|vertebra|wirbel|height|rib) t[12]\b",
    r"\b(after|before|prior|instead of|same as|like|see|vs|compared?( to)?|not?|nach|apres|avant|vor) (the )?t[12]w?\b",
)  # fmt: skip
"""Where T1 and T2 are vertebrae, or another series."""

# A letter before the weighting (Philips writes sT1W, eT1W), no letters that would make it another word (set1).
_BEFORE = r"(?<![a-z0-9])(?:[se](?=t[12]w|pdw)|ax|sag|cor|tra)?"

WEIGHTINGS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "T1",
        _any(
            _BEFORE + r"t1(?![0-9]| ?map| ?rho)", r"mp ?2? ?rage", r"\bspgr\b", r"\bfspgr", r"\bbravo\b", r"\bvibe",
            r"\btfl3d", r"\bmemprage",
        ),
    ),
    ("FLAIR", re.compile(r"(?<!t1 )(?<!t1w )(?<!t1)flair(?! t1|man|er|ing)|dark ?fluid|fluid ?att|space ?ir\b")),
    (
        "T2",
        re.compile(
            _BEFORE + r"t2(?![0-9]|\*| ?star| ?\*|s\b|w? ?(tirm )?(ax |sag |cor |tra |tse |3d |space |fs )*"
            r"(flair|dark ?fl)| ?map)(?!w? ?(\*|star|gre|ffe|fl2d|swi|hemo))"
        ),
    ),
    (
        "T2*",
        _any(
            _BEFORE + r"t2w? ?(\*|star)", _BEFORE + r"t2s\b", _BEFORE + r"t2w? ?(gre|ffe|fl2d|hemo)", r"\bswi\b",
            r"\bswan\b", r"\bswip?\b", r"\bvenobold", r"\bbold\b", r"\bf ?mri\b", r"\bhaemo?\b", r"\bhemo\b",
            r"\bsuscept", r"\bmedic\b", r"\bepfid",
        ),
    ),
    (
        "PD",
        _any(
            r"(?<![a-z0-9])(?:[se]{1,2}|ax|sag|cor|tra)?pdw?\b", r"\bproton", r"\bprotonen", r"\bdp\b",
            r"densite de proton", r"\brho\b",
        ),
    ),
    (
        "DWI",
        _any(
            r"\bdwi\b", r"\bdw ?epi", r"\bdti\b", r"\bdiff", r"\bdifus", r"\btrace", r"\bresolve\b",
            r"\bdwibs", r"\bb ?(500|800|1000|1500|2000)\b",
        ),
    ),
)  # fmt: skip

_MEDIUM = r"(contrast\w*|kontrast\w*|gd|gado?\w*|km|ce?|inj\w*|iv|pdc|mdc|kmittel)"
NO_CONTRAST = _any(
    rf"\bpre\b( ?{_MEDIUM}\b)?", r"\bnative?\b", r"\bnon ?contrast\w*", r"\bunenhanced\b", r"\bcontrast none\b",
    rf"\b(w ?o|without|ohne|sans|sin|sem|senza|zonder)\b( {_MEDIUM}\b)?", rf"\bno {_MEDIUM}\b", r"\bblanco\b",
    rf"\b(vor|avant|before|prima|antes|voor) (d\w+ )?{_MEDIUM}\b",
)  # fmt: skip

# "Post" is a surgeon's word too, and short for posterior.
_POST = r"\bpost\b(?! ?(op|surg|rt|radi|chemo|treat|trauma|bx|biops|ther|fossa|cran|stroke|ictal|part|mort|resec))"
CONTRAST = _any(
    _POST, r"\bpost ?(contrast|gd|gado|km|con|c)\b", r"\bgd\b", r"\bgad\b", r"\bgado", r"\+ ?(c|gd|gado|km|k)\b",
    r"\bc ?\+", r"\bt1w? ?ce?\b", r"\bce\b", r"\bt1w? ?km\b", r"\bkm\b", r"\bmdc\b", r"\biv\b(?! ?(vent|th))",
    r"\bcontrast", r"\bkontrast", r"\binject", r"\binj\b", r"\bdotarem\b", r"\bgadovist\b", r"\bmagnevist\b",
    r"\bprohance\b", r"\bwith and\b", r"\bt1w? ?(gd|ce|c)\b", r"\bt1c\b", r"\bt1ce\b", r"\bt1gd\b",
)  # fmt: skip

BODY_PARTS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "BRAIN",
        _any(
            r"brain", r"\bhead\b", r"\bskull\b", r"cerebr", r"\bkopf", r"schadel", r"gehirn", r"hirn", r"\bcrane\b",
            r"cranien", r"crani[aou]", r"cerveau", r"encephal", r"encefal", r"cerveaux", r"\bcabeza", r"\btesta\b",
            r"\bhersen", r"\bhoofd\b", r"\bhjarna", r"\bmozg", r"neurocran", r"mprage", r"pituitar", r"hypophy",
            r"sellar?\b",
        ),
    ),
    ("KNEE", _any(r"knee", r"\bknie", r"\bgenou", r"\brodilla", r"\bginocchio")),
    (
        "SPINE",
        _any(
            r"spine\b", r"spinal", r"wirbels", r"\bhws\b", r"\bbws\b", r"\blws\b", r"rachis", r"columna", r"colonna",
            r"lumb",
        ),
    ),
    ("SHOULDER", _any(r"shoulder", r"schulter", r"epaule", r"hombro", r"spalla")),
    ("HIP", _any(r"\bhip\b", r"\bhufte?", r"\bhanche", r"\bcadera", r"\banca\b")),
    ("PELVIS", _any(r"pelvi", r"becken", r"bassin", r"bacino")),
    ("PROSTATE", _any(r"prosta")),
    ("ABDOMEN", _any(r"abdom", r"oberbauch")),
    ("LIVER", _any(r"\bliver", r"\bleber", r"\bfoie\b", r"higado", r"fegato")),
    ("CHEST", _any(r"\bchest", r"thora[xc]", r"\btorace", r"\btorax")),
    ("HEART", _any(r"\bheart", r"cardia", r"\bherz", r"\bcoeur", r"\bcuore")),
    ("BREAST", _any(r"breast", r"mamma", r"\bbrust", r"\bsein\b", r"\bseno\b", r"\bmama\b")),
    ("NECK", _any(r"\bneck", r"\bhals", r"\bcollo\b", r"\bcuello")),
    ("ANKLE", _any(r"ankle", r"sprunggelenk", r"cheville", r"tobillo", r"caviglia")),
    ("FOOT", _any(r"\bfoot", r"\bfuss", r"\bpied\b", r"\bpie\b", r"\bpiede\b")),
    ("WRIST", _any(r"wrist", r"handgelenk", r"poignet", r"muneca", r"polso")),
    ("HAND", _any(r"\bhand\b", r"\bmain\b", r"\bmano\b")),
    ("ELBOW", _any(r"elbow", r"ellenbogen", r"\bcoude\b", r"\bcodo\b", r"gomito")),
)  # fmt: skip
