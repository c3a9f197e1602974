"""Videos and images as files, read back by another reader (imageio); what cannot be written is refused before anything is."""

import errno
import os
import zlib
from pathlib import Path

import av
import imageio.v3 as iio
import numpy as np
import pytest
import torch
from PIL import Image

from vdiff_kernels.media import check_output, grid, load_image, save_video


@pytest.fixture
def video():
    """(C, T, H, W) = (1, 5, 6, 8): no two frames are alike, no axis is like another, every value is a level of a file."""
    return torch.randint(0, 256, (1, 5, 6, 8)) / 255


def levels(video) -> np.ndarray:
    """(T, H, W, C) uint8."""
    return (video * 255).round().byte().permute(1, 2, 3, 0).numpy()


def enlarged(frames: np.ndarray, scale: int) -> np.ndarray:
    return frames.repeat(scale, axis=1).repeat(scale, axis=2)


def test_gif(video, tmp_path):
    save_video(tmp_path / "a.gif", video, scale=3)
    frames = iio.imread(tmp_path / "a.gif", mode="RGB")
    assert np.array_equal(frames, enlarged(levels(video), 3).repeat(3, axis=-1))
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.info["duration"] == 100 and gif.info["loop"] == 0  # ten frames a second, without end


def test_gif_keeps_the_time_of_frames_that_are_alike(video, tmp_path):
    video[:, 2] = video[:, 1]
    save_video(tmp_path / "a.gif", video, fps=20)
    with Image.open(tmp_path / "a.gif") as gif:
        durations = []
        for place in range(gif.n_frames):
            gif.seek(place)
            durations.append(gif.info["duration"])
    assert sum(durations) == 5 * 50


def test_mp4(tmp_path):
    video = torch.linspace(0, 1, 5)[None, :, None, None].expand(1, 5, 7, 9) * torch.linspace(0.2, 1, 7)[:, None]
    save_video(tmp_path / "a.mp4", video, scale=5, fps=12.5)  # 35 x 45 pixels, where H.264 takes even sizes
    meta = iio.immeta(tmp_path / "a.mp4", plugin="pyav")
    assert meta["codec"] == "h264" and meta["video_format"].startswith("yuv420p") and meta["fps"] == 12.5
    frames = iio.imread(tmp_path / "a.mp4", plugin="pyav").astype(int)
    assert frames.shape == (5, 36, 46, 3)
    assert np.abs(frames[:, :35, :45] - enlarged(levels(video), 5)).max() <= 6
    assert np.abs(frames[:, 35, :] - frames[:, 34, :]).max() <= 6  # the edge once more, not a black line


def test_mp4_says_how_its_colours_are_coded(tmp_path):
    save_video(tmp_path / "a.mp4", torch.rand(3, 2, 16, 16), scale=2)
    with av.open(str(tmp_path / "a.mp4")) as container:
        codec = container.streams.video[0].codec_context
        tags = codec.colorspace, codec.color_range, codec.color_primaries, codec.color_trc
    assert tuple(map(int, tags)) == (5, 1, 1, 1)  # BT.601's matrix, limited range, BT.709's primaries and transfer
    assert b"colr" in (tmp_path / "a.mp4").read_bytes()


@pytest.mark.parametrize("fps", [0.002, 0.01, 0.1, 29.97])
def test_mp4_takes_every_rate(fps, tmp_path):
    save_video(tmp_path / "a.mp4", torch.rand(1, 3, 8, 8), fps=fps, scale=1)
    assert iio.imread(tmp_path / "a.mp4", plugin="pyav").shape == (3, 8, 8, 3)


def smooth() -> torch.Tensor:
    """(3, T, H, W) of more than 256 colours a frame, as levels of a file."""
    t, y, x = torch.meshgrid(torch.arange(3) / 3, torch.linspace(0, 1, 96), torch.linspace(0, 1, 96), indexing="ij")
    return torch.stack((x, y, (x + y + t) / 3)).mul(255).round() / 255


def test_a_gif_of_smooth_colours_is_right_in_the_mean(tmp_path):
    video = smooth()
    save_video(tmp_path / "a.gif", video, scale=1)
    off = iio.imread(tmp_path / "a.gif", mode="RGB").astype(float) - levels(video)
    assert np.abs(off).max() <= 40  # dithered: between colours that are that far apart
    means = off.reshape(3, 12, 8, 12, 8, 3).mean((2, 4))
    assert np.abs(means).max() <= 2.5 and np.abs(means).mean() <= 0.4  # without dithering 3.6 and 0.74


def test_a_gif_of_few_colours_is_exact(tmp_path):
    colours = torch.randint(0, 256, (256, 3)) / 255
    video = colours[torch.stack([torch.randperm(256) for _ in range(3)]).view(3, 16, 16)].permute(3, 0, 1, 2)
    save_video(tmp_path / "a.gif", video, scale=2)
    assert np.array_equal(iio.imread(tmp_path / "a.gif", mode="RGB"), enlarged(levels(video), 2))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_still_longer_than_a_gif_can_say(channels, tmp_path):
    video = torch.zeros(channels, 67, 8, 8)
    video[:, :1] = 1
    with pytest.raises(ValueError, match="66 equal frames in a row, 660 s; expected at most 655.35 s in a GIF: a higher fps"):
        save_video(tmp_path / "a.gif", video, fps=0.1)
    assert os.listdir(tmp_path) == []
    save_video(tmp_path / "a.gif", video[:, :66], fps=0.1)  # 650 s
    save_video(tmp_path / "a.mp4", video, fps=0.1)
    with Image.open(tmp_path / "a.gif") as gif:
        gif.seek(1)
        assert gif.n_frames == 2 and gif.info["duration"] == 650_000


def test_numpy_arrays_and_other_dtypes(video, tmp_path):
    kinds = (video, video.numpy(), video.double(), video.numpy().tolist(), video.clone().requires_grad_())
    for number, given in enumerate(kinds):
        save_video(tmp_path / f"{number}.gif", given, scale=1)
        assert (tmp_path / f"{number}.gif").read_bytes() == (tmp_path / "0.gif").read_bytes()
    save_video(tmp_path / "half.gif", torch.ones(1, 1, 8, 8, dtype=torch.bfloat16) * 0.50390625, scale=1)
    assert (iio.imread(tmp_path / "half.gif", mode="L") == 128).all()  # 128.496 of 255, where bfloat16 has no halves
    assert torch.equal(grid(np.zeros((2, 1, 3, 4, 4), np.float32), 2), grid(torch.zeros(2, 1, 3, 4, 4), 2))
    with pytest.raises(TypeError, match="save_video: video is 'a.mp4'; expected a torch.Tensor or an array"):
        save_video(tmp_path / "b.gif", "a.mp4")
    with pytest.raises(TypeError, match="grid: videos has dtype torch.uint8"):
        grid(np.zeros((2, 1, 3, 4, 4), np.uint8), 2)
    with pytest.raises(ValueError, match="grid: videos has shape .*; expected 5 dimensions"):
        grid(video, 2)


@pytest.mark.parametrize("name", ["a.png", "a.GIF", "a.mp4"])
def test_colours_stay_in_their_order(name, tmp_path):
    video = torch.tensor([0.9, 0.1, 0.5])[:, None, None, None].expand(3, 2, 8, 8)
    save_video(tmp_path / name, video, scale=4)
    pixel = iio.imread(tmp_path / name)[..., 16, 16, :3].reshape(-1, 3)[0].astype(int)
    assert np.abs(pixel - [230, 26, 128]).max() <= 8


def test_png_is_a_sheet_in_reading_order(tmp_path):
    video = torch.rand(1, 11, 2, 3)
    save_video(tmp_path / "a.png", video, scale=2)
    sheet, frames = iio.imread(tmp_path / "a.png"), enlarged(levels(video), 2)[..., 0]
    assert sheet.shape == (10, 62)  # two rows of eight, two pixels of gray between
    assert np.array_equal(sheet[:4, 8:14], frames[1]) and np.array_equal(sheet[6:, 16:22], frames[10])
    assert (sheet[4:6] == 128).all() and (sheet[:, 6:8] == 128).all()


def test_frames_are_enlarged_to_about_256_pixels(tmp_path):
    for side, shown in ((32, 256), (48, 240), (300, 300)):
        save_video(tmp_path / "a.gif", torch.rand(1, 1, 3, side))
        assert iio.imread(tmp_path / "a.gif").shape[-2] == shown


def test_grid_has_every_clip_in_its_place():
    clips = torch.rand(3, 2, 4, 5, 6)  # (B, C, T, H, W)
    whole = grid(clips, columns=2)
    assert whole.shape == (2, 4, 11, 13)
    for clip, y, x in zip(clips, (0, 0, 6), (0, 7, 0)):
        assert torch.equal(whole[:, :, y : y + 5, x : x + 6], clip)


@pytest.mark.parametrize(
    "change, given",
    [
        (dict(video=torch.rand(5, 6, 8)), r"video has shape \(5, 6, 8\)"),
        (dict(video=torch.rand(5, 1, 6, 8)), r"shape \(5, 1, 6, 8\).*C 1 or 3"),  # (T, C, H, W), the usual mistake
        (dict(video=torch.rand(1, 0, 6, 8)), "at least one pixel"),
        (dict(video=torch.ones(1, 5, 6, 8, dtype=torch.uint8)), "torch.uint8.*floating"),
        (dict(video=torch.rand(1, 5, 6, 8) * 2 - 1), "values from -.*expected pixels from 0 to 1"),
        (dict(video=torch.full((1, 5, 6, 8), torch.nan)), "values from nan"),
        (dict(fps=0), "fps is 0; expected from 0.002, at most 50"),
        (dict(fps=1e-9), "fps is 1e-09"), (dict(fps=float("nan")), "fps is nan"), (dict(fps=51), "fps is 51.*at most 50"),
        (dict(scale=0), "scale is 0"), (dict(scale=1025), "scale is 1025 for frames of 6 x 8.*at most 8192 pixels"),
        (dict(path="a.avi"), "'.*a.avi' ends in '.avi'; expected .gif, .mp4 or .png"),
        (dict(path="gif"), "has no extension"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_video_is_refused(change, given, tmp_path):
    old = tmp_path / change.pop("path", "a.gif")
    old.write_bytes(b"old")
    with pytest.raises(ValueError, match=given):
        save_video(old, **{"video": torch.rand(1, 5, 6, 8)} | change)
    assert old.read_bytes() == b"old" and os.listdir(tmp_path) == [old.name]


class TestCheckOutput:
    def test_leaves_no_trace(self, tmp_path):
        check_output(tmp_path / "new.gif")
        assert os.listdir(tmp_path) == []

    def test_where_a_link_leads(self, tmp_path):
        (tmp_path / "link.gif").symlink_to("nowhere/a.gif")
        with pytest.raises(FileNotFoundError, match="link.gif': no folder '.*nowhere'"):
            check_output(tmp_path / "link.gif")
        (tmp_path / "nowhere").mkdir()
        check_output(tmp_path / "link.gif")
        (tmp_path / "loop.gif").symlink_to("loop.gif")
        with pytest.raises(OSError, match="loop.gif' is not a file"):
            check_output(tmp_path / "loop.gif")

    def test_no_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no folder '.*nowhere'"):
            check_output(tmp_path / "nowhere" / "a.gif")

    @pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
    def test_something_else_in_its_place(self, make, tmp_path):
        make(tmp_path / "a.gif")
        with pytest.raises(OSError, match="'.*a.gif' is not a file"):
            check_output(tmp_path / "a.gif")

    def test_a_folder_that_is_read_only(self, tmp_path, monkeypatch):
        """As the file system says it: root is not held by permissions."""

        def refuse(*args, **kwargs):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        monkeypatch.setattr(os, "open", refuse)
        with pytest.raises(OSError, match="'.*a.gif' cannot be written .Read-only file system.; expected a file in a writable"):
            check_output(tmp_path / "a.gif")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root writes them all the same")
    def test_permissions(self, tmp_path):
        (tmp_path / "a.gif").touch(mode=0o444)
        with pytest.raises(OSError, match="the file that stands there is read-only"):
            check_output(tmp_path / "a.gif")
        tmp_path.chmod(0o555)
        with pytest.raises(OSError, match="Permission denied"):
            check_output(tmp_path / "b.gif")

    def test_a_name_that_leaves_no_room_for_a_draft(self, tmp_path):
        with pytest.raises(OSError, match="File name too long"):
            check_output(tmp_path / f"{'a' * 248}.gif")


class TestLoadImage:
    def save(self, tmp_path, image, name="a.png", **options):
        image.save(tmp_path / name, **options)
        return tmp_path / name

    def test_gray_is_exact(self, tmp_path):
        pixels = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
        image = load_image(self.save(tmp_path, Image.fromarray(pixels)), 1, (6, 8))
        assert image.dtype == torch.float32 and image.shape == (1, 6, 8)
        assert torch.equal(image[0], torch.from_numpy(pixels) / 255)

    def test_gray_of_16_bits_is_not_clipped(self, tmp_path):
        """Pillow's own conversion makes white of everything above 255."""
        pixels = (np.arange(48, dtype=np.uint16) * 1300).reshape(6, 8)
        image = load_image(self.save(tmp_path, Image.fromarray(pixels)), 3, (6, 8))
        torch.testing.assert_close(image, torch.from_numpy(pixels / 65535).float().expand(3, 6, 8))

    def test_colour(self, tmp_path):
        image = Image.new("RGB", (8, 6), (255, 0, 51))
        path = self.save(tmp_path, image)
        torch.testing.assert_close(load_image(path, 3, (6, 8))[:, 0, 0], torch.tensor([1.0, 0.0, 0.2]))
        assert load_image(path, 1, (6, 8))[0, 0, 0] == pytest.approx((0.299 * 255 + 0.114 * 51) / 255, abs=0.003)

    def test_transparent_is_black(self, tmp_path):
        path = self.save(tmp_path, Image.new("RGBA", (8, 6), (255, 255, 255, 0)))
        assert load_image(path, 1, (6, 8)).max() == 0

    def test_turned_as_a_camera_says(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6  # turn by a quarter, clockwise
        image = Image.new("L", (8, 6))
        image.putpixel((0, 0), 255)
        turned = load_image(self.save(tmp_path, image, exif=exif), 1, (8, 6))
        assert turned[0, 0, 5] == 1

    def test_first_frame_of_a_gif(self, video, tmp_path):
        save_video(tmp_path / "a.gif", video, scale=1)
        assert torch.equal(load_image(tmp_path / "a.gif", 1, (6, 8)), video[:, 0])

    @pytest.mark.parametrize("size", [(8, 6), (6, 9), (12, 16)])
    def test_wrong_size(self, size, tmp_path):
        path = self.save(tmp_path, Image.new("L", (8, 6)))
        with pytest.raises(ValueError, match=rf"has 6 x 8 pixels \(H x W\); expected {size[0]} x {size[1]}"):
            load_image(path, 1, size)

    def test_a_wrong_size_is_refused_without_decoding(self, tmp_path, recwarn):
        """A hundred bytes that claim 100 megapixels would take 100 MB, and Pillow's warning two more lines."""
        head = b"\x00\x00\x00\rIHDR" + (10_000).to_bytes(4, "big") * 2 + b"\x08\x00\x00\x00\x00"
        chunk = head + zlib.crc32(head[4:]).to_bytes(4, "big")
        (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + b"\x00\x00\x00\x00IDAT" + bytes(64))
        with pytest.raises(ValueError, match="has 10000 x 10000 pixels"):
            load_image(tmp_path / "a.png", 1, (6, 8))
        assert not recwarn.list

    @pytest.mark.parametrize("broken", ["empty", "text", "truncated", "flipped", "folder", "missing"])
    def test_a_broken_file_is_a_value_error_of_one_line(self, broken, tmp_path):
        path = self.save(tmp_path, Image.fromarray(torch.randint(0, 256, (64, 64)).byte().numpy()))
        data = path.read_bytes()
        flipped = data[:60] + bytes(byte ^ 255 for byte in data[60:100]) + data[100:]
        path.unlink()
        if broken == "folder":
            path.mkdir()
        elif broken != "missing":
            contents = {"empty": b"", "text": b"hello", "truncated": data[:-800], "flipped": flipped}
            path.write_bytes(contents[broken])
        with pytest.raises(ValueError, match="a.png'.*; expected an image") as refused:
            load_image(path, 1, (64, 64))
        assert "\n" not in str(refused.value)

    def test_channels_that_no_image_has(self, tmp_path):
        with pytest.raises(ValueError, match="channels is 2; expected 1"):
            load_image(self.save(tmp_path, Image.new("L", (8, 6))), 2, (6, 8))
