"""Headers as vendors' scanners write them, and which sequence each is; made up, after public documentation.

Keywords and their values are those of the conformance statements; sequence names, protocol names and times are the
usual ones of each vendor's protocols, as in the public sources of `SOURCES`. No row is a copy of a patient's header.
"""

from __future__ import annotations

from typing import Any

SOURCES = {
    "siemens": "Siemens MAGNETOM DICOM Conformance Statement; dcm_qa (BSD-2) for Sequence Name and Image Type",
    "siemens-xa": "Siemens syngo MR XA DICOM Conformance Statement; dcm_qa_xa30 (BSD-2); PS3.3 C.8.13",
    "ge": "GE MR DICOM Conformance Statement; dcm_qa_ge for Scanning Sequence and Sequence Variant",
    "philips": "Philips Ingenia/Achieva DICOM Conformance Statement; dcm_qa_philips",
    "philips-enhanced": "the same, Enhanced MR; PS3.3 C.8.13.5",
    "canon": "Canon/Toshiba Vantage DICOM Conformance Statement",
    "fujifilm": "Hitachi/Fujifilm Echelon DICOM Conformance Statement",
    "words": "series descriptions as RadLex Playbook, ACR and national protocol books word them",
    "trap": "words that are no sequence",
}

Row = tuple[str, str, dict[str, Any], str]


def _times(played: str, tr: float, te: float, ti: float | None = None, **more: Any) -> dict[str, Any]:
    found = {"ScanningSequence": played.split("\\"), "RepetitionTime": tr, "EchoTime": te} | more
    return found if ti is None else found | {"InversionTime": ti}


T1_SE, T1_TSE = _times("SE", 550, 9), _times("SE", 700, 11)
T2_TSE, PD_TSE = _times("SE", 4500, 95), _times("SE", 3000, 28)
FLAIR = _times("SE\\IR", 9000, 95, 2500)
STIR = _times("SE\\IR", 4500, 60, 150)
T1_FLAIR = _times("SE\\IR", 2300, 14, 860)
MPRAGE = _times("GR\\IR", 2200, 2.9, 900, FlipAngle=9, SequenceVariant=["SP", "MP"])
SPOILED = _times("GR", 8, 3.2, FlipAngle=12, SequenceVariant=["SP"])
T2STAR = _times("GR", 620, 20, FlipAngle=20)
DIFFUSION = _times("EP", 6000, 85)
TOF = _times("GR", 22, 3.6, FlipAngle=20, SequenceVariant=["SP"])
BALANCED = _times("GR", 6, 2.6, FlipAngle=60, SequenceVariant=["SS"])
BOLD = _times("EP\\GR", 2000, 30, FlipAngle=77)


def _enhanced(contrast: str, tr: float, te: float, ti: float | None = None, **more: Any) -> dict[str, Any]:
    """An enhanced instance's header, flattened."""
    pulse = {"EchoPulseSequence": "SPIN"} | more
    found = {"AcquisitionContrast": contrast, "RepetitionTime": tr, "EchoTime": te} | pulse
    return found if ti is None else found | {"InversionTime": ti, "InversionRecovery": "YES"}


HEADERS: list[Row] = [
    # source, series description, other values, sequence
    ("siemens", "t1_se_tra", T1_SE | {"SequenceName": "*se2d1"}, "T1"),
    ("siemens", "t1_tse_sag_320", T1_TSE | {"SequenceName": "*tse2d1_3"}, "T1"),
    ("siemens", "t1_mprage_sag_p2_iso", MPRAGE | {"SequenceName": "*tfl3d1_16ns"}, "T1"),
    ("siemens", "t1_mprage_sag_p2_iso_KM", MPRAGE | {"SequenceName": "*tfl3d1_16ns"}, "T1CE"),
    ("siemens", "t1_space_sag_p2_iso", _times("SE", 600, 7.2) | {"SequenceName": "*spc_40ns"}, "T1"),
    ("siemens", "t1_vibe_dixon_tra_W", SPOILED | {"ImageType": ["ORIGINAL", "PRIMARY", "M", "DIXON", "WATER"]}, "T1"),
    (
        "siemens",
        "t1_vibe_dixon_tra_F",
        SPOILED | {"ImageType": ["ORIGINAL", "PRIMARY", "M", "DIXON", "FAT"]},
        "unknown",
    ),
    ("siemens", "t1_vibe_dixon_tra_opp", SPOILED, "unknown"),
    ("siemens", "t1_fl2d_tra", _times("GR", 250, 2.5, FlipAngle=70, SequenceVariant=["SP"]), "T1"),
    ("siemens", "t1_tirm_tra_dark-fluid", T1_FLAIR | {"SequenceName": "*tir2d1_7"}, "T1"),
    ("siemens", "t2_tse_tra_512", T2_TSE | {"SequenceName": "*tse2d1_15"}, "T2"),
    ("siemens", "t2_blade_tra", T2_TSE | {"SequenceName": "*tseB2d1_25"}, "T2"),
    ("siemens", "t2_space_sag_p2_iso", _times("SE", 3200, 408) | {"SequenceName": "*spc_282ns"}, "T2"),
    ("siemens", "t2_haste_cor", _times("SE", 1500, 92) | {"SequenceName": "*h2d1_205"}, "T2"),
    ("siemens", "t2_tirm_tra_dark-fluid", FLAIR | {"SequenceName": "*tir2d1_16"}, "FLAIR"),
    (
        "siemens",
        "t2_space_dark-fluid_sag_p2_iso",
        _times("SE\\IR", 5000, 388, 1800) | {"SequenceName": "*spcir_242ns"},
        "FLAIR",
    ),
    ("siemens", "t2_tirm_cor", STIR | {"SequenceName": "*tir2d1_11"}, "unknown"),
    ("siemens", "sequence 4", _times("SE", 9000, 95) | {"SequenceName": "*tir2d1_16"}, "unknown"),
    ("siemens", "pd_tse_fs_sag", PD_TSE | {"SequenceName": "*tse2d1_7"}, "PD"),
    ("siemens", "pd+t2_tse_tra", _times("SE", 3000, 14), "PD"),
    ("siemens", "pd+t2_tse_tra", _times("SE", 3000, 100), "T2"),
    ("siemens", "t2_fl2d_tra_hemo", T2STAR | {"SequenceName": "*fl2d1"}, "T2*"),
    ("siemens", "SWI_Images", _times("GR", 28, 20, FlipAngle=15) | {"SequenceName": "*swi3d1r"}, "T2*"),
    ("siemens", "Pha_Images", _times("GR", 28, 20) | {"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, "unknown"),
    (
        "siemens",
        "mIP_Images(SW)",
        _times("GR", 28, 20) | {"ImageType": ["DERIVED", "PRIMARY", "MNIP", "SWI"]},
        "unknown",
    ),
    (
        "siemens",
        "ep2d_diff_3scan_trace_TRACEW",
        DIFFUSION | {"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "TRACEW"]},
        "DWI",
    ),
    (
        "siemens",
        "ep2d_diff_3scan_trace_ADC",
        DIFFUSION | {"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]},
        "ADC",
    ),
    (
        "siemens",
        "ep2d_diff_mddw_20_FA",
        DIFFUSION | {"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "FA"]},
        "unknown",
    ),
    ("siemens", "ep2d_bold_moco", BOLD | {"SequenceName": "*epfid2d1_64"}, "T2*"),
    ("siemens", "ep2d_perf_p2", BOLD | {"SequenceName": "*epfid2d1_128"}, "unknown"),
    ("siemens", "TOF_3D_multi-slab", TOF | {"SequenceName": "*fl3d1r_t70"}, "unknown"),
    ("siemens", "t2_ci3d_tra_iso", BALANCED | {"ProtocolName": "ciss3d_tra"}, "unknown"),
    ("siemens", "t1_mp2rage_sag_INV1", MPRAGE | {"SequenceName": "*tfl3d1_16ns"}, "unknown"),
    ("siemens", "t1_mp2rage_sag_UNI_Images", MPRAGE | {"ImageType": ["DERIVED", "PRIMARY", "M", "ND", "UNI"]}, "T1"),
    ("siemens", "t1_mp2rage_sag_T1_Images", MPRAGE | {"ImageType": ["DERIVED", "PRIMARY", "T1 MAP", "ND"]}, "unknown"),
    ("siemens", "t1_mprage_sub", MPRAGE | {"ImageType": ["DERIVED", "SECONDARY", "SUB"]}, "unknown"),
    ("siemens", "t1_twist_dyn", SPOILED | {"ContrastBolusAgent": "Gadovist"}, "unknown"),
    ("siemens", "localizer", SPOILED | {"SequenceName": "*fl2d1"}, "localiser"),
    ("siemens", "AAHead_Scout_64ch", SPOILED, "localiser"),
    ("siemens-xa", "t1_mprage_sag", _enhanced("T1", 2300, 2.98, 900, EchoPulseSequence="GRADIENT"), "T1"),
    ("siemens-xa", "t2_space_flair_sag", _enhanced("T2", 5000, 388, 1800), "FLAIR"),
    ("siemens-xa", "t2_tse_tra", _enhanced("T2", 4500, 100), "T2"),
    ("siemens-xa", "ep2d_diff", _enhanced("DIFFUSION", 6000, 80, DiffusionBValue=1000.0), "DWI"),
    ("siemens-xa", "t1_se_tra", _enhanced("UNKNOWN", 550, 9), "T1"),
    ("siemens-xa", "t2_stir_cor", _enhanced("STIR", 4500, 60, 160), "unknown"),
    ("ge", "Ax T1 SE", T1_SE, "T1"),
    ("ge", "Ax T1 SE +C", T1_SE, "T1CE"),
    ("ge", "Sag T1 FLAIR", T1_FLAIR, "T1"),
    ("ge", "Ax T1 FLAIR", T1_FLAIR | {"ContrastBolusAgent": "GADAVIST"}, "T1CE"),
    ("ge", "Ax 3D BRAVO", _times("GR", 8.2, 3.2, 450, FlipAngle=12, SequenceVariant=["SS", "SP", "SK"]), "T1"),
    ("ge", "Ax 3D SPGR POST", SPOILED, "T1CE"),
    ("ge", "Sag CUBE T1", _times("SE", 600, 12), "T1"),
    ("ge", "Ax T2 FRFSE", T2_TSE, "T2"),
    ("ge", "Ax T2 PROPELLER", _times("RM", 4800, 100), "T2"),
    ("ge", "Sag CUBE T2", _times("SE", 2500, 90), "T2"),
    ("ge", "Ax T2 FLAIR", FLAIR, "FLAIR"),
    ("ge", "Ax T2 FLAIR PROPELLER", _times("RM", 8500, 120, 2250), "FLAIR"),
    ("ge", "Sag T2 CUBE FLAIR", _times("SE\\IR", 6000, 125, 1700), "FLAIR"),
    ("ge", "Cor STIR", STIR, "unknown"),
    ("ge", "Ax PD FSE", PD_TSE, "PD"),
    ("ge", "Ax T2* GRE", T2STAR, "T2*"),
    ("ge", "Ax SWAN", _times("GR", 40, 24, FlipAngle=15), "T2*"),
    ("ge", "Ax DWI B-1000", DIFFUSION | {"DiffusionBValue": 1000.0}, "DWI"),
    (
        "ge",
        "Apparent Diffusion Coefficient (mm2/s)",
        DIFFUSION | {"ImageType": ["DERIVED", "SECONDARY", "COMBINED"]},
        "ADC",
    ),
    (
        "ge",
        "Exponential Apparent Diffusion Coefficient",
        DIFFUSION | {"ImageType": ["DERIVED", "PRIMARY", "EADC"]},
        "unknown",
    ),
    ("ge", "3D TOF MRA", TOF, "unknown"),
    ("ge", "INHANCE 3D VELOCITY", TOF, "unknown"),
    ("ge", "Ax FIESTA-C", BALANCED, "unknown"),
    ("ge", "3D ASL (non-contrast)", _times("RM", 4800, 10.5), "unknown"),
    ("ge", "WATER: Ax LAVA Flex T1", SPOILED, "T1"),
    ("ge", "FAT: Ax LAVA Flex T1", SPOILED, "unknown"),
    ("ge", "OutPhase: Ax LAVA Flex T1", SPOILED, "unknown"),
    ("ge", "3Plane Loc SSFSE", _times("SE", 1500, 80), "localiser"),
    ("philips", "T1W_SE", T1_SE | {"PulseSequenceName": "SE"}, "T1"),
    ("philips", "sT1W_3D_TFE", _times("GR", 8.1, 3.7, FlipAngle=8, SequenceVariant=["MP"]), "T1"),
    ("philips", "T1W_TSE_GADO", T1_TSE, "T1CE"),
    ("philips", "T2W_TSE", T2_TSE, "T2"),
    ("philips", "T2W_FLAIR", _times("IR", 11000, 125, 2800), "FLAIR"),
    ("philips", "3D_Brain_VIEW_FLAIR", _times("IR", 4800, 340, 1650), "FLAIR"),
    ("philips", "VISTA T2", _times("SE", 2500, 250), "T2"),
    ("philips", "PDW_SPAIR", PD_TSE, "PD"),
    ("philips", "STIR_longTE", STIR, "unknown"),
    ("philips", "T2W_FFE", T2STAR, "T2*"),
    ("philips", "SWIp", _times("GR", 31, 7.2, FlipAngle=17), "T2*"),
    ("philips", "DWI_3b", DIFFUSION | {"DiffusionBValue": 1000.0}, "DWI"),
    ("philips", "dADC", DIFFUSION | {"ImageType": ["DERIVED", "SECONDARY", "ADC", "ADC"]}, "ADC"),
    ("philips", "B0_map", _times("GR", 650, 7, FlipAngle=60), "unknown"),
    ("philips", "bTFE_BH", BALANCED, "unknown"),
    ("philips", "T2W_DRIVE", _times("SE", 1500, 250), "unknown"),
    ("philips", "Survey", SPOILED, "localiser"),
    ("philips", "SmartBrain", SPOILED, "localiser"),
    ("philips-enhanced", "WIP T1W_3D_TFE", _enhanced("T1", 8, 3.7, EchoPulseSequence="GRADIENT"), "T1"),
    ("philips-enhanced", "T1W_3D_TFE CE", _enhanced("T1", 8, 3.7, EchoPulseSequence="GRADIENT"), "T1CE"),
    ("philips-enhanced", "FLAIR", _enhanced("FLUID_ATTENUATED", 11000, 125, 2800), "FLAIR"),
    ("philips-enhanced", "T2W_TSE", _enhanced("T2", 3000, 80), "T2"),
    ("philips-enhanced", "PDW_TSE", _enhanced("PROTON_DENSITY", 3000, 30), "PD"),
    ("philips-enhanced", "s3DI_MC_HR", _enhanced("T1", 25, 3.4, TimeOfFlightContrast="YES"), "unknown"),
    ("philips-enhanced", "T1W_SE", _enhanced("T1", 550, 10, ComplexImageComponent="PHASE"), "unknown"),
    ("canon", "T1W SE", T1_SE | {"SequenceName": "SE2d"}, "T1"),
    ("canon", "FFE3D_MPRAGE", MPRAGE | {"SequenceName": "FFE3d_MPRAGE"}, "T1"),
    ("canon", "T2W FSE", T2_TSE | {"SequenceName": "FSE2d"}, "T2"),
    ("canon", "FLAIR", _times("SE\\IR", 10000, 105, 2700) | {"SequenceName": "FSE_FLAIR"}, "FLAIR"),
    ("canon", "T2* FE", T2STAR | {"SequenceName": "FE2d"}, "T2*"),
    ("canon", "MRA TOF", TOF | {"SequenceName": "FE_slt"}, "unknown"),
    ("canon", "DWI", DIFFUSION | {"SequenceName": "SEEPI2D_dwi", "DiffusionBValue": 1000.0}, "DWI"),
    ("canon", "Locator", SPOILED, "localiser"),
    ("fujifilm", "T1WI", T1_SE, "T1"),
    ("fujifilm", "FLAIR", FLAIR, "FLAIR"),
    ("fujifilm", "BSI", _times("GR", 50, 35), "T2*"),
    # Languages.
    ("words", "T1 sag nach KM", T1_SE, "T1CE"),
    ("words", "T1 tra ohne KM", T1_SE, "T1"),
    ("words", "T1 ax vor KM", T1_SE, "T1"),
    ("words", "T1 AXIAL APRES INJECTION", T1_SE, "T1CE"),
    ("words", "T1 sagittal sans injection", T1_SE, "T1"),
    ("words", "T1 AVANT GADO", T1_SE, "T1"),
    ("words", "T1 axial con contraste", T1_SE, "T1CE"),
    ("words", "T1 axial sin contraste", T1_SE, "T1"),
    ("words", "T1 cor com contraste", T1_SE, "T1CE"),
    ("words", "T1 cor sem contraste", T1_SE, "T1"),
    ("words", "T1 assiale con mdc", T1_SE, "T1CE"),
    ("words", "T1 assiale senza mdc", T1_SE, "T1"),
    ("words", "T1 tra na contrast", T1_SE, "T1CE"),
    ("words", "T1 tra zonder contrast", T1_SE, "T1"),
    ("words", "T1 tra blanco", T1_SE, "T1"),
    ("words", "Densité de protons axial", {}, "PD"),
    ("words", "Protonendichte sag", {}, "PD"),
    ("words", "Difusión axial", DIFFUSION, "DWI"),
    ("words", "Repérage 3 plans", SPOILED, "localiser"),
    ("words", "Übersicht", SPOILED, "localiser"),
    ("words", "Localizador", SPOILED, "localiser"),
    ("words", "T1 fat sat post contrast", T1_SE, "T1CE"),
    ("words", "T1 with and without contrast", T1_SE, "unknown"),
    # Traps: a wrong name is worse than none.
    ("trap", "T1 level", {}, "unknown"),
    ("trap", "L2 T1 spine", {}, "unknown"),
    ("trap", "T1-T12", {}, "unknown"),
    ("trap", "T2 vertebra fracture", {}, "unknown"),
    ("trap", "after T2 study", {}, "unknown"),
    ("trap", "same as T1", {}, "unknown"),
    ("trap", "set1", {}, "unknown"),
    ("trap", "part1 of test2", {}, "unknown"),
    ("trap", "Flairman protocol", {}, "unknown"),
    ("trap", "ST1 station", {}, "unknown"),
    ("trap", "coronary T2prep", SPOILED | {"FlipAngle": 5}, "unknown"),
    ("trap", "T2 mapping", {}, "unknown"),
    ("trap", "MOLLI T1 native", {}, "unknown"),
    ("trap", "AX T2", T1_SE, "unknown"),
    ("trap", "T1 post op", T1_SE, "T1"),
    ("trap", "T1 sag post fossa", T1_SE, "T1"),
    ("trap", "T1 IV ventricle", T1_SE, "T1"),
    ("trap", "T1 tra", T1_SE | {"ContrastBolusAgent": "No contrast"}, "T1"),
    ("trap", "T1 tra", T1_SE | {"ContrastBolusAgent": "N/A"}, "T1"),
    ("trap", "T1 pre", T1_SE | {"ContrastBolusAgent": "Dotarem"}, "unknown"),
    ("trap", "", {}, "unknown"),
]
