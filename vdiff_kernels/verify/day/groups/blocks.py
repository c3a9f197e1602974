"""A block and a U-Net of diffusers, in bfloat16: as they are, and patched, by whatever backend auto takes.

Where diffusers is on the path; a wheel of it is enough (benchmarks/gpu_day.sh takes a folder of wheels).
"""

from ....bench import models
from .. import clock
from ..rows import Day, first_line

BLOCKS = [(320, 16, 64, 64), (640, 16, 32, 32)]
UNETS = [((320, 640), 16, 32, 32)]


def run(day: Day) -> None:
    blocks, unets = ([(320, 16, 4, 4)], [((32, 64), 4, 8, 8)]) if day.quick else (BLOCKS, UNETS)
    makers = [(models.motion_module, size) for size in blocks] + [(models.patched_unet, size) for size in unets]
    for maker, size in makers:
        try:
            contest = maker(size, day.automatic())
        except ImportError as error:
            return day.add("absent", "diffusers", why=first_line(error))
        clock.measure(day, contest)
