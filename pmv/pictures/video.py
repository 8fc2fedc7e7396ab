"""Frames to MP4 (H.264, 4:2:0), which every browser and phone plays."""

import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import imageio_ffmpeg
import numpy as np

from pmv.files.artifacts import atomic_path


def write_mp4(path: str | Path, frames: Iterable[np.ndarray], fps: int = 30, crf: int = 18) -> None:
    """Writes a video under a temporary name and renames it when complete.

    H.264 with 4:2:0 chroma needs even sizes: an odd last row or column is repeated once.

    Args:
        path: ends in .mp4.
        frames: uint8 [H,W,3] RGB, all of one size; an array [T,H,W,3] or an iterator.
        fps: frames per second.
        crf: x264's quality, lower is better; 18 is visually lossless.

    Raises:
        ValueError: no frames, or frames of another type or of different sizes.
        OSError: the disk refuses it.
    """
    writer, shape = None, None
    with atomic_path(path) as temporary:
        try:
            for frame in frames:
                if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
                    raise ValueError(f"a video frame is uint8 [H,W,3], got {frame.dtype} {frame.shape}")
                if shape is not None and frame.shape != shape:
                    raise ValueError(f"video frames differ in size: {shape} and {frame.shape}")
                shape = frame.shape
                frame = np.pad(frame, ((0, shape[0] % 2), (0, shape[1] % 2), (0, 0)), mode="edge")
                if writer is None:
                    writer = _open_writer(temporary, (frame.shape[1], frame.shape[0]), fps, crf)
                try:
                    writer.send(np.ascontiguousarray(frame))
                except OSError as error:  # what the library makes of an encoder that ended
                    raise _refused(temporary) from error
            if writer is None:
                raise ValueError(f"{Path(path).name}: a video needs at least one frame")
        finally:
            if writer is not None:
                writer.close()
        # the library does not ask how the encoder ended: on a full disk it leaves what it had
        if not _is_whole(temporary):
            raise _refused(temporary)


def _open_writer(path: Path, size: tuple[int, int], fps: int, crf: int):
    """A generator that takes frames; faststart puts the index first, so that a browser plays while it loads."""
    output = ["-crf", str(crf), "-movflags", "+faststart", "-fflags", "+bitexact", "-f", "mp4"]
    writer = imageio_ffmpeg.write_frames(
        str(path),
        size,
        fps=fps,
        codec="libx264",
        macro_block_size=1,
        output_params=output,
        ffmpeg_log_level="quiet",  # what goes wrong is told in one line
    )
    writer.send(None)
    return writer


def _is_whole(path: Path) -> bool:
    """Whether an MP4's boxes (ISO 14496-12 §4.2) fill the file, an index among them: none is written to a full disk."""
    kinds, position, size = set(), 0, path.stat().st_size
    with open(path, "rb") as file:
        while position < size:
            file.seek(position)
            head = file.read(16)
            length = int.from_bytes(head[:4], "big")
            if length == 1:  # a length that takes eight bytes, after the kind
                length = int.from_bytes(head[8:16], "big")
            if length < 8:
                return False
            kinds.add(head[4:8])
            position += length
    return position == size and {b"ftyp", b"moov", b"mdat"} <= kinds


def _refused(path: Path) -> OSError:
    """The error of a film that could not be written: the encoder says why in words alone."""
    number = errno.ENOSPC if shutil.disk_usage(path.parent).free < 1 << 16 else errno.EIO
    return OSError(number, os.strerror(number), str(path))
