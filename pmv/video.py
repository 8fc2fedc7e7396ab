"""Frames to MP4 (H.264, 4:2:0), which every browser and phone plays."""

import os
from collections.abc import Iterable
from pathlib import Path

import imageio_ffmpeg
import numpy as np


def write_video(path: str | Path, frames: Iterable[np.ndarray], fps: int = 30, crf: int = 18) -> None:
    """Writes a video under a temporary name and renames it when complete.

    H.264 with 4:2:0 chroma needs even sizes: an odd last row or column is repeated once.

    Args:
        path: ends in .mp4.
        frames: uint8 [H,W,3] RGB, all of one size; an array [T,H,W,3] or an iterator.
        fps: frames per second.
        crf: x264's quality, lower is better; 18 is visually lossless.

    Raises:
        ValueError: no frames, or frames of another type or of different sizes.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")
    writer, shape = None, None
    try:
        for frame in frames:
            if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
                raise ValueError(f"a video frame is uint8 [H,W,3], got {frame.dtype} {frame.shape}")
            if shape is not None and frame.shape != shape:
                raise ValueError(f"video frames differ in size: {shape} and {frame.shape}")
            shape = frame.shape
            frame = np.pad(frame, ((0, shape[0] % 2), (0, shape[1] % 2), (0, 0)), mode="edge")
            if writer is None:
                writer = imageio_ffmpeg.write_frames(
                    str(temporary),
                    (frame.shape[1], frame.shape[0]),
                    fps=fps,
                    codec="libx264",
                    macro_block_size=1,
                    # faststart: the index comes first, so that a browser plays while it loads; bitexact: no dates in the file
                    output_params=["-crf", str(crf), "-movflags", "+faststart", "-fflags", "+bitexact"],
                )
                writer.send(None)
            writer.send(np.ascontiguousarray(frame))
        if writer is None:
            raise ValueError(f"{path.name}: a video needs at least one frame")
        writer.close()
        writer = None
        os.replace(temporary, path)
    finally:
        if writer is not None:
            writer.close()
        temporary.unlink(missing_ok=True)
