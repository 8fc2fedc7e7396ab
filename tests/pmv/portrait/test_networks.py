"""The networks that ship: they say what the published files say, and damaged ones are told in one line. Answers of the
published files are those of OpenCV 5 (MediaPipe's) and of PyTorch (O-Net), on the plain portrait.
"""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pmv.errors import AssetsError
from pmv.files.artifacts import read_header, save_tensors
from pmv.pictures.images import read_bytes
from pmv.portrait import onet
from pmv.portrait.landmarks import _anchor_answers
from pmv.portrait.networks import KINDS, Network, Step, as_input, load_network, network
from pmv.training import face_networks
from tests.conftest import ROOT

PLAIN = read_bytes(ROOT / "assets" / "portraits" / "plain.png")[0][0].permute(1, 2, 0).numpy()


def small(side: int) -> np.ndarray:
    return cv2.resize(PLAIN, (side, side), interpolation=cv2.INTER_AREA)


def test_the_detector_says_what_the_published_one_says():
    scores, answers = _anchor_answers(small(128))
    assert scores.argmax() == 724 and scores[724] == pytest.approx(1 / (1 + np.exp(-2.6268165)), abs=1e-4)
    nose_and_mouth = [[1.36, 9.627], [2.888, 22.988]]
    np.testing.assert_allclose(
        answers[724][[0, 1, 4, 5]], [[7.457, 3.398], [73.943, 73.928], *nose_and_mouth], atol=0.01
    )


def test_the_mesh_says_what_the_published_one_says():
    answer = network("mesh")(as_input(small(192)[None]))
    points = answer["conv2d_21"].reshape(468, 3)[[1, 33, 61, 263, 291]]
    wanted = [
        [82.824, 124.582, -23.073],
        [54.443, 90.851, 6.872],
        [66.919, 139.91, 9.756],
        [123.284, 92.663, -1.401],
        [106.152, 140.852, 4.571],
    ]
    np.testing.assert_allclose(points, wanted, atol=0.01)
    assert float(answer["conv2d_31"]) == pytest.approx(23.609, abs=0.01)


def test_the_segmentation_says_what_the_published_one_says():
    selfie = network("selfie")(as_input(small(256)[None]))["activation_10"][0, 0]
    assert float(selfie.mean()) == pytest.approx(0.46015, abs=1e-4)
    assert float(selfie[200, 180]) == pytest.approx(0.579, abs=1e-3)


def test_o_net_says_what_the_published_one_says_but_for_rounding():
    score, box, points = onet._answer(small(48)[None])
    assert score[0] == pytest.approx(0.0418, abs=1e-3)
    np.testing.assert_allclose(box[0], [[8.561, 4.682], [35.943, 45.981]], atol=0.02)
    wanted = [[18.288, 18.782], [29.728, 20.5], [22.072, 27.57], [15.309, 35.337], [27.07, 36.431]]
    np.testing.assert_allclose(points[0], wanted, atol=0.02)


def test_several_pictures_at_once_are_answered_like_each():
    pictures = np.stack([small(192), small(192)[:, ::-1]])
    together = network("mesh")(as_input(pictures))["conv2d_21"]
    each = [network("mesh")(as_input(pictures[k : k + 1]))["conv2d_21"] for k in (0, 1)]
    torch.testing.assert_close(together, torch.cat(each), atol=1e-3, rtol=0)


def test_the_conversion_of_o_net_computes_what_the_published_code_does():
    shapes = {"conv1": (32, 3, 3, 3), "conv2": (64, 32, 3, 3), "conv3": (64, 64, 3, 3), "conv4": (128, 64, 2, 2)}
    shapes |= {"dense5": (256, 1152), "dense6_1": (2, 256), "dense6_2": (4, 256), "dense6_3": (10, 256)}
    rng = torch.Generator().manual_seed(0)
    state = {f"{name}.weight": 0.1 * torch.randn(shape, generator=rng) for name, shape in shapes.items()}
    state |= {f"{name}.bias": 0.1 * torch.randn(shape[0], generator=rng) for name, shape in shapes.items()}
    state |= {
        f"prelu{name[-1]}.weight": torch.rand(shape[0], generator=rng) for name, shape in list(shapes.items())[:5]
    }
    x = torch.randn(2, 3, 48, 48, generator=rng)
    answer = face_networks.onet(state)(x)
    for k, window in enumerate((3, 3, 2, 0), 1):
        x = F.prelu(F.conv2d(x, state[f"conv{k}.weight"], state[f"conv{k}.bias"]), state[f"prelu{k}.weight"])
        x = F.max_pool2d(x, window, 2, ceil_mode=True) if window else x
    x = x.permute(0, 3, 2, 1).flatten(1)  # as facenet-pytorch flattens it
    x = F.prelu(F.linear(x, state["dense5.weight"], state["dense5.bias"]), state["prelu5.weight"])
    for name in ("dense6_1", "dense6_2", "dense6_3"):
        wanted = F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])
        torch.testing.assert_close(answer[name].flatten(1), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size, kernel, stride, wanted", [(192, 3, 2, [0, 1]), (128, 5, 2, [1, 2]), (16, 3, 1, [1, 1])])
def test_padding_is_tensorflows(size: int, kernel: int, stride: int, wanted: list[int]):
    assert face_networks.same_padding(size, kernel, stride) == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_what_ships_says_where_it_comes_from(kind: str):
    folder = ROOT / "assets" / "landmarks"
    header = read_header(folder / f"{kind}.safetensors")
    assert header["source"] in (folder / "NOTICE").read_text() and header["published_sha256"]
    assert header["licence"] == ("MIT" if kind == "onet" else "Apache-2.0")


@pytest.mark.parametrize(
    "steps, outputs",
    [
        ([["conjure", "a", ["x"], {}]], ["a"]),
        ([["relu", "a", ["nowhere"], {}]], ["a"]),
        ([["relu", "a", ["x"], {}]], ["b"]),
        ([["relu", "a"]], ["a"]),
    ],
)
def test_a_file_that_says_nonsense_is_told_in_one_line(tmp_path: Path, steps: list, outputs: list[str]):
    path = tmp_path / "mesh.safetensors"
    save_tensors(path, {"a.weight": torch.zeros(1)}, {"input": "x", "outputs": outputs, "steps": steps})
    with pytest.raises(AssetsError, match=r"mesh\.safetensors: missing, damaged .*reinstall pmv"):
        load_network(path)
    for content in (b"", b"no"):
        path.write_bytes(content)
        with pytest.raises(AssetsError, match=r"mesh\.safetensors: missing, damaged"):
            load_network(path)


def test_steps_in_between_are_forgotten_but_outputs_stay():
    steps = [Step("relu", "a", ("x",), {}), Step("add", "b", ("a", "x"), {}), Step("multiply", "c", ("b", "a"), {})]
    x = torch.tensor([[[[-1.0, 2.0]]]])
    found = Network(steps, ["a", "c"], {}, "x")(x)
    assert list(found) == ["a", "c"] and found["c"].flatten().tolist() == [0.0, 8.0]
