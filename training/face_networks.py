"""Makes `assets/landmarks`: the face networks of MediaPipe and MTCNN, from the packages that publish them, as
`pmv.portrait.networks` reads them.

    pip download --no-deps mediapipe==0.10.21 facenet-pytorch==2.6.0   # Apache-2.0, MIT: wheels, which unzip opens
    python -m pmv.training.face_networks --mediapipe mediapipe/modules --mtcnn facenet_pytorch/data \\
        --out assets/landmarks

Newer versions of mediapipe no longer hold these files. MediaPipe's weights are fp16 already and stay what they are;
O-Net's are rounded to it, which moves a crop by 0.01 % of its width, no more than another machine's arithmetic does.
The extra `train` has the reader of TensorFlow Lite's files.
"""

import argparse
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pmv.files.artifacts import file_hash, save_tensors
from pmv.portrait.networks import Network, Step

MEDIAPIPE = {
    "detector": "face_detection/face_detection_short_range.tflite",
    "mesh": "face_landmark/face_landmark.tflite",
    "selfie": "selfie_segmentation/selfie_segmentation.tflite",
}
"""Files by kind, below mediapipe/modules."""
_PLAIN = {
    "RELU": "relu",
    "HARD_SWISH": "hard_swish",
    "LOGISTIC": "sigmoid",
    "ADD": "add",
    "MUL": "multiply",
}
_TRANSPOSED = "Convolution2DTransposeBias"  # MediaPipe's own operation: kernel 2, stride 2


class Unknown(ValueError):
    """A file holds what this conversion does not know."""


def same_padding(size: int, kernel: int, stride: int) -> list[int]:
    """Zeros before and after, as TensorFlow's "SAME" puts them: of an odd number the greater half comes after."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return [total // 2, total - total // 2]


class TensorFlowLite:
    """The first subgraph of a TensorFlow Lite file."""

    def __init__(self, path: Path):
        tflite = importlib.import_module("tflite")  # of the extra `train`

        self.module = tflite
        self.model = tflite.Model.GetRootAs(path.read_bytes(), 0)
        graph = self.model.Subgraphs(0)
        assert graph is not None
        self.graph: Any = graph
        self.builtins = {value: name for name, value in vars(tflite.BuiltinOperator).items() if isinstance(value, int)}
        self.halves: dict[int, int] = {}  # tensors that are an fp16 constant's fp32 copy

    def name(self, index: int) -> str:
        return self.graph.Tensors(index).Name().decode().removesuffix("__xeno_compat__1")

    def shape(self, index: int) -> list[int]:
        return [int(n) for n in self.graph.Tensors(index).ShapeAsNumpy()]

    def constant(self, index: int) -> np.ndarray:
        tensor = self.graph.Tensors(self.halves.get(index, index))
        kind = {
            self.module.TensorType.FLOAT16: np.float16,
            self.module.TensorType.FLOAT32: np.float32,
            self.module.TensorType.INT32: np.int32,
        }[tensor.Type()]
        buffer: Any = self.model.Buffers(tensor.Buffer())
        return np.frombuffer(bytearray(buffer.DataAsNumpy()), kind).reshape(self.shape(index))

    def options(self, operator: Any, kind: str) -> Any:
        table, options = operator.BuiltinOptions(), getattr(self.module, kind)()
        options.Init(table.Bytes, table.Pos)
        return options

    def network(self, outputs: Mapping[str, str] | None = None) -> Network:
        """The network, its layout changed from [N,H,W,C] to [N,C,H,W]. What only reshapes and joins results at the end
        is left out: the outputs are the maps that go into it."""
        steps: list[Step] = []
        weights: dict[str, Tensor] = {}
        left_out: set[str] = set()
        for k in range(self.graph.OperatorsLength()):
            operator = self.graph.Operators(k)
            code: Any = self.model.OperatorCodes(operator.OpcodeIndex())
            kind = self.builtins[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
            taken, result = [int(i) for i in operator.InputsAsNumpy()], int(operator.OutputsAsNumpy()[0])
            name, first = self.name(result), self.name(taken[0])
            if kind == "DEQUANTIZE":
                self.halves[result] = taken[0]
                continue
            if kind in ("RESHAPE", "CONCATENATION"):
                left_out |= {self.name(i) for i in taken} | {name}
                continue
            if kind in ("CONV_2D", "DEPTHWISE_CONV_2D"):
                step, extra = self._convolution(operator, kind, name, taken)
                weights |= extra
            elif kind == "CUSTOM" and code.CustomCode().decode() == _TRANSPOSED:
                kernel = torch.from_numpy(self.constant(taken[1]))  # [out, h, w, in]
                weights[f"{name}.weight"] = kernel.permute(3, 0, 1, 2)
                weights[f"{name}.bias"] = torch.from_numpy(self.constant(taken[2]))
                step = Step("transposed_convolution", name, (first,), {"stride": 2})
            elif kind == "PRELU":
                weights[f"{name}.weight"] = torch.from_numpy(self.constant(taken[1])).reshape(-1)
                step = Step("prelu", name, (first,), {})
            elif kind == "PAD":
                amounts = self.constant(taken[1])
                if amounts[:3].any() or amounts[3, 0]:
                    raise Unknown(f"{name} pads more than channels")
                step = Step("more_channels", name, (first,), {"count": int(amounts[3, 1])})
            elif kind in ("MAX_POOL_2D", "AVERAGE_POOL_2D"):
                step = self._pool(operator, kind, name, taken[0])
            elif kind == "RESIZE_BILINEAR":
                options = self.options(operator, "ResizeBilinearOptions")
                if options.AlignCorners() or not options.HalfPixelCenters():
                    raise Unknown(f"{name} aligns corners")
                if self.constant(taken[1]).tolist() != [2 * n for n in self.shape(taken[0])[1:3]]:
                    raise Unknown(f"{name} does not double the size")
                step = Step("twice_as_large", name, (first,), {})
            elif kind in _PLAIN:
                step = Step(_PLAIN[kind], name, tuple(self.name(i) for i in taken), {})
            else:
                raise Unknown(f"{name} is a {kind}")
            steps.append(step)
        made = {step.result for step in steps}
        ends = [self.name(int(i)) for i in self.graph.OutputsAsNumpy()]
        kept = [end for end in ends if end in made] or sorted(left_out & made)
        return Network(steps, kept, weights, self.name(int(self.graph.InputsAsNumpy()[0])))

    def _convolution(self, operator: Any, kind: str, name: str, taken: list[int]) -> tuple[Step, dict[str, Tensor]]:
        deep = kind == "DEPTHWISE_CONV_2D"
        options = self.options(operator, "DepthwiseConv2DOptions" if deep else "Conv2DOptions")
        kernel = torch.from_numpy(self.constant(taken[1]))  # [out, h, w, in], or [1, h, w, out]
        weight = kernel.permute(3, 0, 1, 2) if deep else kernel.permute(0, 3, 1, 2)
        if (
            options.FusedActivationFunction()
            or options.DilationWFactor() != 1
            or options.StrideW() != options.StrideH()
        ):
            raise Unknown(f"{name} is dilated, or has an activation of its own")
        stride, pad = options.StrideW(), [0, 0, 0, 0]
        if options.Padding() == self.module.Padding.SAME:
            _, height, width, _ = self.shape(taken[0])
            rows, columns = weight.shape[-2:]
            pad = same_padding(width, columns, stride) + same_padding(height, rows, stride)
        groups = weight.shape[0] if deep else 1
        step = Step("convolution", name, (self.name(taken[0]),), {"stride": stride, "pad": pad, "groups": groups})
        return step, {f"{name}.weight": weight, f"{name}.bias": torch.from_numpy(self.constant(taken[2]))}

    def _pool(self, operator: Any, kind: str, name: str, taken: int) -> Step:
        options = self.options(operator, "Pool2DOptions")
        size = [options.FilterHeight(), options.FilterWidth()]
        if kind == "AVERAGE_POOL_2D":
            if size != self.shape(taken)[1:3]:
                raise Unknown(f"{name} is a mean of less than everything")
            return Step("mean", name, (self.name(taken),), {})
        if any(n % size[0] for n in self.shape(taken)[1:3]) or size != [options.StrideH(), options.StrideW()]:
            raise Unknown(f"{name} pools windows that overlap")
        return Step("max_pool", name, (self.name(taken),), {"kernel_size": size[0]})


def onet(state: Mapping[str, Tensor]) -> Network:
    """MTCNN's O-Net as facenet-pytorch has it; its results: score [N,2,1,1], box [N,4,1,1] and points [N,10,1,1].

    Its dense layers are convolutions here. The first of them takes the values of [N,C,H,W] in the order W, H, C: the
    network was trained on transposed pictures.
    """
    steps: list[Step] = []
    before = "picture"

    def then(operation: str, name: str, **options: Any) -> None:
        nonlocal before
        steps.append(Step(operation, name, (before,), options))
        before = name

    convolution = {"stride": 1, "pad": [0, 0, 0, 0], "groups": 1}
    for k, window in enumerate((3, 3, 2, 0), 1):
        then("convolution", f"conv{k}", **convolution)
        then("prelu", f"prelu{k}")
        if window:
            then("max_pool", f"pool{k}", kernel_size=window, stride=2, ceil_mode=True)
    then("convolution", "dense5", **convolution)
    then("prelu", "prelu5")
    ends = [f"dense6_{k}" for k in (1, 2, 3)]
    steps += [Step("convolution", name, ("prelu5",), convolution) for name in ends]
    weights = dict(state) | {"dense5.weight": state["dense5.weight"].reshape(256, 3, 3, 128).permute(0, 3, 2, 1)}
    weights |= {f"{name}.weight": state[f"{name}.weight"][:, :, None, None] for name in ends}
    return Network(steps, ends, weights, "picture")


def save(path: Path, network: Network, source: Path, licence: str) -> None:
    """Write a network as `pmv.portrait.networks.load_network` reads it, its weights in fp16."""
    header = {
        "input": network.inputs,
        "outputs": network.outputs,
        "steps": [list(step) for step in network.steps],
        "source": source.name,
        "published_sha256": file_hash(source),
        "licence": licence,
    }
    save_tensors(path, {name: value.half() for name, value in network.weights.items()}, header)
    print(f"{path}: {path.stat().st_size} bytes, sha256 {file_hash(path)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--mediapipe", type=Path, required=True, help="its folder modules, with the .tflite files")
    parser.add_argument("--mtcnn", type=Path, required=True, help="facenet-pytorch's folder data, with onet.pt")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write to")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for kind, name in MEDIAPIPE.items():
        source = options.mediapipe / name
        save(options.out / f"{kind}.safetensors", TensorFlowLite(source).network(), source, "Apache-2.0")
    source = options.mtcnn / "onet.pt"
    state = torch.load(source, map_location="cpu", weights_only=True)
    save(options.out / "onet.safetensors", onet(state), source, "MIT")


if __name__ == "__main__":
    main()
