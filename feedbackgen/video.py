"""Frames to an MP4."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from feedbackgen.errors import MissingDependency
from feedbackgen.files import writing_to

FRAMES_PER_SECOND = 30


def write_video(frames: Iterable[np.ndarray], path: Path) -> None:
    """Write RGB frames, each (height, width, 3) uint8, as an H.264 MP4 that appears complete or not at all.

    Raises:
        MissingDependency: imageio or its encoder is not installed.
        StoreError: the place cannot be written.
    """
    try:
        import imageio.v2 as imageio
        import imageio_ffmpeg  # noqa: F401 - imageio finds its encoder by this package
    except ImportError as error:
        raise MissingDependency("videos need imageio and its encoder: pip install 'feedbackgen[video]'") from error
    path = Path(path)
    draft = path.with_name(f".{path.stem}.draft.mp4")
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with imageio.get_writer(draft, fps=FRAMES_PER_SECOND, codec="libx264", macro_block_size=None) as writer:
                for frame in frames:
                    writer.append_data(frame)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
