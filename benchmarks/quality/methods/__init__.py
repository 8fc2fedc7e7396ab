"""The methods by name, in the order of the table. A new one is a file here and a line below."""

from benchmarks.quality.methods.base import Method, Result, Task, Unfit, share
from benchmarks.quality.methods.face import FACE
from benchmarks.quality.methods.hfgi3d import HFGI3D
from benchmarks.quality.methods.latent import W_PLUS, W
from benchmarks.quality.methods.oracles import ORACLES
from benchmarks.quality.methods.pmv import ABLATIONS, PMV
from benchmarks.quality.methods.pti import PTI
from benchmarks.quality.methods.seeded import ENCODE, SEEDED

METHODS: dict[str, Method] = {
    method.name: method for method in (W, W_PLUS, PTI, HFGI3D, *ENCODE, PMV, *SEEDED, FACE, *ABLATIONS, *ORACLES)
}

__all__ = ["METHODS", "Method", "Result", "Task", "Unfit", "share"]
