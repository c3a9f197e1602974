"""Videos and images as files: pixels from 0 to 1 to .gif, .mp4 and .png, and images back.

Needs the packages of the extra `cli`: pip install 'vdiff_kernels[cli]'.
"""

import importlib
import io
import os
import tempfile
import warnings
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from .arrays import as_tensor
from .files import written_path, written_whole
from .ops import checks

FPS = 10
SHOWN = 256  # Pixels that the longer side of a frame is enlarged to, about: 32 x 32 is a thumbnail.
MAX_SIDE = 8192  # Of an enlarged frame, in pixels.
MIN_FPS = 0.002
MAX_FPS = 50  # A GIF's delay is in hundredths of a second, and below two of them players take ten.
MAX_STILL = 65_535  # Hundredths of a second that a GIF's delay holds, 16 bits.
SHEET_COLUMNS = 8
COLOURS = 256  # Of a frame of a GIF.
PACKAGES = {".gif": "PIL", ".mp4": "av", ".png": "PIL"}  # What writes each.


def check_output(path: str | os.PathLike) -> None:
    """Raises what would keep `save_video` from writing to path, or to where a symbolic link there leads, before there is a video.

    ValueError for an unknown extension, OSError for a folder that is missing or cannot be written, or where something other than
    a file stands at path, ImportError for a missing package. Leaves no trace.
    """
    path = Path(path)
    if path.suffix.lower() not in PACKAGES:
        given = f"ends in {path.suffix!r}" if path.suffix else "has no extension"
        raise ValueError(f"{str(path)!r} {given}; expected .gif, .mp4 or .png")
    target = written_path(path)
    if not target.parent.is_dir():
        folder = path.parent if target == path else target.parent
        raise FileNotFoundError(f"{str(path)!r}: no folder {str(folder)!r}; expected one that exists")
    if target.is_symlink() or target.exists() and not target.is_file():
        raise IsADirectoryError(f"{str(path)!r} is not a file; expected a new one, or one to replace")
    try:
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(None, "the file that stands there is read-only")
        with tempfile.NamedTemporaryFile(prefix=f".{target.stem}.", suffix=target.suffix, dir=target.parent):
            pass
    except OSError as error:
        raise OSError(f"{str(path)!r} cannot be written ({error.strerror}); expected a file in a writable folder") from None
    importlib.import_module(PACKAGES[path.suffix.lower()])


def save_video(
    path: str | os.PathLike,    # .gif or .mp4 to play (a GIF without end), or .png: a sheet of the frames, in reading order.
    video: Tensor,              # (C, T, H, W), C 1 (gray) or 3 (RGB), pixels from 0 to 1; or a NumPy array.
    *,
    fps: float = FPS,           # Frames a second; a GIF's are rounded to a hundredth of a second each.
    scale: int | None = None,   # Times that each pixel is shown in both directions. Default: frames of about 256 pixels.
) -> None:  # fmt: skip
    """Writes the video, whole or not at all. Raises ValueError or TypeError, or what `check_output` does.

    A GIF has 256 colours a frame: gray is exact, and so are frames of as few colours. Others are dithered: single pixels are up
    to some 25 of 255 levels off, and the mean of a few is right.
    """
    check_output(path)
    video = video if isinstance(video, Tensor) else as_tensor("save_video", "video", video)
    _require_video(video)
    checks.require_number("save_video", "fps", fps)
    if not MIN_FPS <= fps <= MAX_FPS:
        raise ValueError(f"save_video: fps is {fps}; expected from {MIN_FPS}, at most {MAX_FPS}")
    H, W = video.shape[-2:]
    scale = default_scale(H, W) if scale is None else scale
    check_scale(scale, H, W)

    suffix = Path(path).suffix.lower()
    if suffix == ".png":
        video = grid(video.transpose(0, 1).unsqueeze(2), SHEET_COLUMNS)
    pixels = (video.detach().cpu().float() * 255).round().to(torch.uint8).permute(1, 2, 3, 0)  # (T, H, W, C)
    frames = pixels.repeat_interleave(scale, 1).repeat_interleave(scale, 2).numpy()
    data = _mp4(frames, fps) if suffix == ".mp4" else _by_pillow(frames, suffix, fps)
    with written_whole(path) as draft:
        draft.write_bytes(data)


def check_scale(scale: int, H: int, W: int) -> None:
    checks.require_positive_int("save_video", "scale", scale)
    if scale * max(H, W) > MAX_SIDE:
        raise ValueError(f"save_video: scale is {scale} for frames of {H} x {W}; expected at most {MAX_SIDE} pixels in the end")


def default_scale(H: int, W: int) -> int:
    return max(1, round(SHOWN / max(H, W)))


def grid(videos: Tensor, columns: int) -> Tensor:
    """Videos (B, C, T, H, W) side by side in rows of `columns`, a gray pixel apart: (C, T, H', W')."""
    videos = as_tensor("grid", "videos", videos)
    checks.require_rank("grid", "videos", videos, "(B, C, T, H, W)")
    B, C, T, H, W = videos.shape
    columns = min(columns, B)
    rows = -(-B // columns)
    whole = videos.new_full((C, T, rows * (H + 1) - 1, columns * (W + 1) - 1), 0.5)
    for place, video in enumerate(videos):
        y, x = place // columns * (H + 1), place % columns * (W + 1)
        whole[:, :, y : y + H, x : x + W] = video
    return whole


def load_image(path: str | os.PathLike, channels: int, size: tuple[int, int]) -> Tensor:
    """The image as pixels (C, H, W) from 0 to 1, for C 1 (gray) or 3 (RGB); of a GIF its first frame. Transparent is black.

    Raises ValueError for a file that is no image, or not one of size (H, W).
    """
    if channels not in (1, 3):
        raise ValueError(f"load_image: channels is {channels}; expected 1 (gray) or 3 (RGB)")
    if not os.path.isfile(path):
        raise ValueError(f"{str(path)!r}: no such file; expected an image of {size[0]} x {size[1]} pixels (H x W)")
    try:
        image = _decoded(path, size)
    except ImportError:
        raise
    except Exception as error:  # decoders raise of all kinds at a broken file
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ValueError(f"{str(path)!r} cannot be read ({reason}); expected an image: PNG, JPEG, GIF or the like") from None
    if image.size != (size[1], size[0]):
        given = f"has {image.height} x {image.width} pixels (H x W)"
        raise ValueError(f"{str(path)!r} {given}; expected {size[0]} x {size[1]}, the size of the model's frames")
    return torch.from_numpy(_levels(image, channels)).permute(2, 0, 1).contiguous()


def _decoded(path: str | os.PathLike, size: tuple[int, int]):
    """The image turned as its EXIF tag says; not decoded where its size is wrong, as a few bytes may claim to be gigabytes."""
    from PIL import Image, ImageOps

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image) if sorted(image.size) == sorted(size) else image


def _levels(image, channels: int):
    """(H, W, C) float32 from 0 to 1."""
    import numpy as np
    from PIL import Image

    if image.mode.startswith("I;16"):  # which Pillow would clip to 255
        gray = np.asarray(image, dtype=np.float32) / 65535
        return np.repeat(gray[..., None], channels, axis=-1)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
    pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"), dtype=np.float32) / 255
    return pixels.reshape(*pixels.shape[:2], channels)


def _require_video(video: Tensor) -> None:
    if video.dim() != 4 or video.shape[0] not in (1, 3) or 0 in video.shape or not video.is_floating_point():
        given = f"save_video: video has shape {tuple(video.shape)} and dtype {video.dtype}"
        raise ValueError(f"{given}; expected (C, T, H, W) with C 1 or 3 and at least one pixel, floating")
    low, high = video.aminmax()
    if not (low >= 0 and high <= 1):
        raise ValueError(f"save_video: video has values from {low.item():g} to {high.item():g}; expected pixels from 0 to 1")


def _by_pillow(frames, suffix: str, fps: float) -> bytes:
    """frames: (T, H, W, C) uint8. Pillow shows equal frames as one that lasts longer."""
    from PIL import Image

    file = io.BytesIO()
    if suffix == ".png":
        Image.fromarray(frames[0].squeeze(-1) if frames.shape[-1] == 1 else frames[0]).save(file, "PNG")
    else:
        delay = round(100 / fps)
        _require_short_stills(frames, delay)
        first, *others = (Image.fromarray(frame[..., 0]) if frame.shape[-1] == 1 else _with_palette(frame) for frame in frames)
        first.save(file, "GIF", save_all=True, append_images=others, duration=delay * 10, loop=0)
    return file.getvalue()


def _require_short_stills(frames, delay: int) -> None:
    """Raises ValueError where equal frames, of `delay` hundredths of a second each, last longer than a GIF can say."""
    longest = count = 1
    for before, frame in zip(frames, frames[1:]):
        count = count + 1 if (before == frame).all() else 1
        longest = max(longest, count)
    if longest * delay > MAX_STILL:
        given = f"video has {longest} equal frames in a row, {longest * delay / 100:g} s"
        raise ValueError(f"save_video: {given}; expected at most {MAX_STILL / 100:g} s in a GIF: a higher fps, or .mp4")


def _with_palette(frame):
    """frame: (H, W, 3) uint8, as an image of 256 colours: its own where these are all, else dithered."""
    import numpy as np
    from PIL import Image

    codes = frame.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)  # (H, W)
    colours = np.unique(codes)
    if len(colours) <= COLOURS:
        image = Image.fromarray(np.searchsorted(colours, codes).astype(np.uint8), "P")
        image.putpalette(np.stack((colours >> 16, colours >> 8 & 255, colours & 255), 1).astype(np.uint8).tobytes())
        return image
    image = Image.fromarray(frame)
    palette = image.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE)  # no colour is left far from all of them
    return image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)


def _mp4(frames, fps: float) -> bytes:
    """frames: (T, H, W, C) uint8. H.264 in yuv420p, which every player has; it needs even sizes, so the edge may stand twice.

    Tagged with the matrix that made it, BT.601's, which players take for granted of small frames only, and with BT.709's
    primaries, which are sRGB's, and its transfer.
    """
    import av
    import numpy as np
    from av.video.reformatter import ColorRange, Colorspace

    T, H, W, C = frames.shape
    frames = np.pad(frames, ((0, 0), (0, H % 2), (0, W % 2), (0, 0)), mode="edge").repeat(3 // C, axis=-1)
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000), options={"crf": "12"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        stream.colorspace, stream.color_range = Colorspace.ITU601, ColorRange.MPEG
        stream.color_primaries, stream.color_trc = 1, 1  # BT.709
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture = picture.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.MPEG)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return file.getvalue()
