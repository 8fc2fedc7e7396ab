"""Video: what is written can be played, whatever the frame size."""

from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from pmv.pictures.video import write_mp4


def frames(count: int = 6, height: int = 32, width: int = 48) -> np.ndarray:
    ramp = np.linspace(20, 230, width).astype(np.uint8)
    video = np.broadcast_to(ramp[None, None, :, None], (count, height, width, 3)).copy()
    for t in range(count):
        video[t, : height // 2] = 40 * t
    return video


@pytest.mark.parametrize(("height", "width"), [(32, 48), (33, 47)])
def test_round_trip_has_even_size_and_like_frames(tmp_path, height, width):
    written = frames(height=height, width=width)
    write_mp4(tmp_path / "turn.mp4", written, fps=12)
    reader = imageio_ffmpeg.read_frames(str(tmp_path / "turn.mp4"))
    meta = next(reader)
    assert meta["size"] == (width + width % 2, height + height % 2)
    assert meta["codec"].startswith("h264")
    assert "yuv420p" in meta["pix_fmt"]
    assert meta["fps"] == 12
    read = [np.frombuffer(f, np.uint8).reshape(meta["size"][1], meta["size"][0], 3) for f in reader]
    assert len(read) == len(written)
    for a, b in zip(read, written):
        assert np.abs(a[:height, :width].astype(float) - b).mean() < 6


def test_equal_frames_give_equal_bytes_and_nothing_else_is_left(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        write_mp4(tmp_path / name, iter(frames()), fps=24)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert b"moov" in (tmp_path / "a.mp4").read_bytes()[:200]  # the index comes first
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([], "at least one frame"),
        ([np.zeros((8, 8, 3), np.float32)], "uint8"),
        ([np.zeros((8, 8), np.uint8)], "uint8"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 10, 3), np.uint8)], "differ in size"),
    ],
)
def test_bad_frames_leave_no_file(tmp_path, bad, message):
    with pytest.raises(ValueError, match=message):
        write_mp4(tmp_path / "bad.mp4", bad)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("what", ["cut", "a box beyond the end", "no index", "nothing"])
def test_a_film_that_the_encoder_could_not_finish_is_none(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """On a full disk ffmpeg leaves what it had, and its library is content."""

    class Encoder:
        def send(self, frame: object) -> None:
            pass

        def close(self) -> None:
            data = whole.read_bytes()
            cut = {
                "cut": data[:-9],
                "a box beyond the end": b"\0\0\xff\xff" + data[4:],
                "no index": data[:32],
                "nothing": b"",
            }
            Path(self.path).write_bytes(cut[what])

    whole = tmp_path / "whole.mp4"
    write_mp4(whole, frames())
    encoder = Encoder()

    def opened(path, *_):
        encoder.path = path
        return encoder

    monkeypatch.setattr("pmv.pictures.video._open_writer", opened)
    with pytest.raises(OSError, match=r"Input/output error"):
        write_mp4(tmp_path / "film.mp4", frames())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["whole.mp4"]
