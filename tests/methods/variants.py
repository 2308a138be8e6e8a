"""Settings of each method in the contract test, and exceptions with reasons."""

IMAGES = {"labelled": 4, "unlabelled": 4, "all": 8}

SMALL_BANKS = {"bank": (16, 24), "width": 8, "anchors": 8, "negatives": 4, "anchor_confidence": 0.1}
VARIANTS = {
    "mean_teacher": [{"preset": "torchsemiseg"}, {"preset": "pixelssl"}],
    "cutmix_seg": [
        {"threshold": 0.0},
        {"threshold": 0.3},
        {"per_pixel": True, "threshold": 0.3},
        {"confidence": "drop", "colour": True},
    ],
    "cps": [{"cutmix": True}, {"cutmix": False}],
    "ael": [
        {},
        {"adaptive_mix": False, "copy_paste": False, "threshold": 0.3, "normalise": "batch", "beta": 0, "gamma": 0},
        {"labelled_too": False, "copy_paste_exclude": [0], "absent": "stay"},
    ],
    "u2pl": [SMALL_BANKS, SMALL_BANKS | {"confidence": "drop", "auxiliary_weight": 0.4}],
    "cct": [{}, {"annealed": 0.9, "decoders": (0, 1, 1, 0, 0, 0, 0)}],
    "gct": [{"detector_width": 4}],
    "cac": [
        {"cell": 2, "confidence": 0.0},
        {"cell": 2, "confidence": 0.0, "fuzzy_negatives": True, "fuzzy_threshold": 0.3, "negatives": 5},
    ],
    "adv_semseg": [{"discriminator_width": 4, "self_start": 0.0}],  # the pixel loss is used from step 0 on
    "vat": [
        {},
        {"radius": "fixed", "images": "unlabelled", "power": 2},
        {"target": "teacher", "jitter": True, "confidence": 0.25},
    ],
    "pseudoseg": [{"attention_channels": 8}, {"attention_channels": 8, "normalise": "pixel", "threshold": 0.1}],
    "pc2seg": [{"negatives": 5}, {"negatives": 5, "debias": "fuzzy", "fuzzy_threshold": 0.3, "consistency": "l2"}],
    "fixmatch": [{"threshold": 0.3}, {"teacher": "ema", "confidence": "drop"}],
    "unimatch": [{"threshold": 0.3}],
    "distill": [{}, {"strong": False, "unsupervised_weight": 0.5}],
    "unimatch_v2": [{"threshold": 0.3}, {"confidence": "drop", "undropped": 0.2}],
}
"""The first ones run with every pixel loss, the others with the paper's and fuzzy."""

NOT_THE_SUM_OF_ITS_PARTS = {
    "cac": "a micro-batch fills the bank for the next",
    "cutmix_seg-threshold=0.3": "the share of sure pixels, which scales the term, is taken in each micro-batch",
    "cct": "the perturbations are drawn for the whole micro-batch, one of them the same for all its images",
    "pc2seg": "negatives are drawn, and from the other images of the micro-batch",
    "pseudoseg": "its calibrating layer has batch norm, whatever the network has; see test_pseudoseg.py",
    "u2pl": "a micro-batch has percentiles, prototypes and partners of its own, and fills the banks for the next",
    "vat": "the noise that the direction starts from is drawn for the whole micro-batch (see test_vat.py)",
}
"""Methods, or methods with some options, for which micro-batches do not equal one batch, and why."""

READS_VALUES = {
    "ael": (
        {"adaptive_mix": True},
        "parts of one class are found on the CPU: their number is that of the image (methods/ael/masks.py)",
    ),
}
"""Method -> settings with which it needs the values of the network's output, and why."""
