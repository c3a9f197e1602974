"""The GPUs that the kernels are built for: how many blocks a multiprocessor holds, and what the data sheets promise."""

from dataclasses import dataclass

REGISTERS = 65536  # of a multiprocessor, in quarters, one for each of its schedulers
SCHEDULERS = 4
REGISTER_UNIT = 256  # registers of a warp are given out in this many
SHARED_UNIT = 128
SHARED_OF_A_BLOCK = 1024  # that the system takes of each block's share


@dataclass(frozen=True)
class GPU:
    """Limits: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability". Peaks: data sheets, dense.

    Latencies are assumed: near those that public microbenchmarks (arXiv 2402.13499) find of an idle memory. Of Blackwell's none
    are known here: those of the GPU before it stand for them.
    """

    name: str
    arch: int
    multiprocessors: int
    clock: float  # Hz, boost
    shared_bytes: int  # of a multiprocessor
    threads: int
    blocks: int
    bandwidth: float  # bytes a second
    half_flops: float  # a second, tensor cores, bfloat16 with float32 accumulation
    float_flops: float
    latency: int  # cycles, of a load from memory

    @property
    def shared_of_a_block(self) -> int:
        """The most that a block may ask for."""
        return self.shared_bytes - SHARED_OF_A_BLOCK

    def blocks_at_once(self, registers: int, threads: int, shared_bytes: int) -> int:
        """How many blocks a multiprocessor holds at once: the rules of cuda_occupancy.h.

        registers: of a thread. threads, shared_bytes: of a block, the latter with what it asks for at its launch.
        """
        warps = -(-threads // 32)
        of_warp = -(-registers * 32 // REGISTER_UNIT) * REGISTER_UNIT
        by_registers = REGISTERS // SCHEDULERS // of_warp * SCHEDULERS // warps
        rounded = -(-(shared_bytes + SHARED_OF_A_BLOCK) // SHARED_UNIT) * SHARED_UNIT
        return min(by_registers, self.shared_bytes // rounded, self.threads // 32 // warps, self.blocks)

    def occupancy(self, registers: int, threads: int, shared_bytes: int) -> float:
        """The share of a multiprocessor's warps that those blocks are."""
        return self.blocks_at_once(registers, threads, shared_bytes) * -(-threads // 32) / (self.threads // 32)

    @property
    def bytes_in_flight(self) -> float:
        """That a multiprocessor must have, for all of them to reach the bandwidth: latency x bandwidth, Little's law."""
        return self.latency / self.clock * self.bandwidth / self.multiprocessors

    def least_seconds(self, moved: float, flops: float, half: bool, warp_instructions: float) -> tuple[float, str]:
        """The roofline: the longest of moving the bytes, doing the flops and issuing the instructions, and which it is."""
        bounds = {
            "bytes": moved / self.bandwidth,
            "flops": flops / (self.half_flops if half else self.float_flops),
            "issue": warp_instructions / (self.multiprocessors * SCHEDULERS * self.clock),
        }
        longest = max(bounds, key=bounds.get)
        return bounds[longest], longest


GPUS = (
    GPU("A100", 80, 108, 1.41e9, 164 << 10, 2048, 32, 2.04e12, 312e12, 19.5e12, 470),
    GPU("H100", 90, 132, 1.83e9, 228 << 10, 2048, 32, 3.35e12, 989e12, 67e12, 480),
    GPU("RTX 4090", 89, 128, 2.52e9, 100 << 10, 1536, 24, 1.01e12, 165e12, 82.6e12, 540),
    GPU("B200", 100, 148, 1.85e9, 228 << 10, 2048, 32, 7.7e12, 2250e12, 75e12, 480),
)
RTX_5090 = GPU("RTX 5090", 120, 170, 2.41e9, 100 << 10, 1536, 24, 1.79e12, 209.5e12, 104.8e12, 540)  # built for by Triton
