"""Training methods, one per paper."""

from fuzzyseg.methods.adv_semseg import AdvSemSeg
from fuzzyseg.methods.ael import AEL
from fuzzyseg.methods.base import Facts, Method, MethodConfig, Progress, Role, Step
from fuzzyseg.methods.cac import CAC
from fuzzyseg.methods.cct import CCT
from fuzzyseg.methods.cps import CPS
from fuzzyseg.methods.cutmix_seg import CutMixSeg
from fuzzyseg.methods.distill import Distill
from fuzzyseg.methods.fixmatch import FixMatch
from fuzzyseg.methods.gct import GCT
from fuzzyseg.methods.mean_teacher import MeanTeacher
from fuzzyseg.methods.pc2seg import PC2Seg
from fuzzyseg.methods.pseudoseg import PseudoSeg
from fuzzyseg.methods.supervised import Supervised
from fuzzyseg.methods.u2pl import U2PL
from fuzzyseg.methods.unimatch import UniMatch
from fuzzyseg.methods.unimatch_v2 import UniMatchV2
from fuzzyseg.methods.vat import VAT

METHODS: dict[str, type[Method]] = {
    "supervised": Supervised,
    "mean_teacher": MeanTeacher,
    "cutmix_seg": CutMixSeg,
    "cps": CPS,
    "ael": AEL,
    "u2pl": U2PL,
    "cct": CCT,
    "gct": GCT,
    "cac": CAC,
    "adv_semseg": AdvSemSeg,
    "vat": VAT,
    "pseudoseg": PseudoSeg,
    "pc2seg": PC2Seg,
    "fixmatch": FixMatch,
    "unimatch": UniMatch,
    "unimatch_v2": UniMatchV2,
    "distill": Distill,
}
"""Methods by name, in the order in which `fuzzyseg methods` lists them."""

__all__ = ["METHODS", "Facts", "Method", "MethodConfig", "Progress", "Role", "Step"]
