"""Faults planted in the CUDA kernels, each of which a test of the fast suite must find.

    python -m tests.mutations [--only NAME] [--jobs N]

Each is planted in a copy of csrc, which the tests named are run against, without golden counts: a fault must show in numbers or
findings. Of the attention kernels the copy has those of one dtype, for the others take minutes to compile. Exit status 1 where a
fault is not found that should be, or where the table no longer fits csrc.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .ptxsim.compile import CSRC
from .ptxsim.core_library import cache_folder

ROOT = Path(__file__).parents[1]
TYPES = {"float32": "float", "float16": "Half", "bfloat16": "BFloat16"}

ATTENTION = "tests/ops/attention/test_cuda_attention.py::test_"
EXTENT = "tests/ops/attention/test_cuda_extent.py::test_"
STATISTICS = "tests/ops/norm/test_cuda_channel_stats.py::test_"
NORMS = "tests/ops/norm/test_cuda_norm_act.py::test_"
CONV = "tests/ops/conv/test_cuda_conv.py::test_"
GEGLU = "tests/ops/feedforward/test_cuda_geglu.py::test_"
LINEAR = "tests/ops/linear/test_cuda_norm_linear.py::test_"


@dataclass(frozen=True)
class Mutation:
    name: str
    file: str  # its base name, wherever in csrc it lies
    old: str  # what stands there once
    new: str
    tests: tuple[str, ...]  # that find it
    dtype: str = "bfloat16"  # of the attention kernels that these run
    equivalent: str = ""  # why nothing that can be observed changes, where nothing does

    def place(self, csrc: Path) -> Path:
        """The file that has the old text. Raises ValueError unless it stands there once."""
        found = [path for path in csrc.rglob(self.file) for _ in range(path.read_text().count(self.old))]
        if len(found) != 1:
            raise ValueError(f"{self.name}: its old text stands in {self.file} {len(found)} times, expected once:\n{self.old}")
        return found[0]


def convolved(case: str, dtype: str = "bfloat16") -> str:
    return f"{CONV}forward_and_every_gradient[norm_act_conv-{case}-{dtype}]"


def conv_edge(case: str, dtype: str = "bfloat16") -> str:
    return f"{CONV}edges_of_tiles[norm_act_conv-{case}-{dtype}]"


def edge(case: str) -> str:
    return f"{ATTENTION}edges_of_tiles[{case}]"


def gated(case: str, dtype: str = "bfloat16") -> str:
    return f"{GEGLU}forward_and_every_gradient[geglu-{case}-{dtype}]"


def projected(case: str, dtype: str = "bfloat16") -> str:
    return f"{LINEAR}forward_and_every_gradient[norm_linear-{case}-{dtype}]"


def steady(case: str) -> str:
    return f"{ATTENTION}head_dims_that_are_compiled[{case}-torch.bfloat16]"


def hostile(case: str, dtype: str = "bfloat16") -> str:
    return f"{ATTENTION}forward_and_every_gradient[{case}-{dtype}]"


def normed(case: str, dtype: str = "bfloat16") -> str:
    return f"{NORMS}forward_and_every_gradient[norm_act-{case}-{dtype}]"


def norm_edge(case: str, dtype: str = "bfloat16") -> str:
    return f"{NORMS}edges_of_tiles[norm_act-{case}-{dtype}]"


def layout(layout: str, norm: str, dtype: str = "float16") -> str:
    return f"{NORMS}every_image_has_its_own_strides[{layout}-{dtype}-{norm}]"


LONG_CAUSAL = (edge("temporal_attention-long-causal"),)
STRIDED_MASK = (f"{ATTENTION}a_mask_of_any_strides",)
PARTS_OF_PIECES = (f"{NORMS}rows_of_pieces_of_channels_that_are_none[none]",)
FAR_ROWS = (f"{EXTENT}row_offsets_past_2_to_the_31",)
MUTATIONS = [
    # Survivors of the suite as it was.
    Mutation(
        "causal-end-of-first-tile-fwd", "long_fwd.cuh",
        "end_of_keys(p, score_rows.place, queries.first + rows)", "end_of_keys(p, score_rows.place, rows)", LONG_CAUSAL,
    ),
    Mutation(
        "causal-end-of-first-tile-dq", "long_bwd_dq.cuh",
        "end_of_keys(p, score_rows.place, queries.first + rows)", "end_of_keys(p, score_rows.place, rows)", LONG_CAUSAL,
    ),
    Mutation(
        "causal-rows-of-first-tile-dkdv", "long_bwd_dkdv.cuh",
        "const ScoreRows<S, true> score_rows(p, sequence, first_row);",
        "const ScoreRows<S, true> score_rows(p, sequence, kWarpRows * warp);", LONG_CAUSAL,
    ),
    Mutation(
        "causal-start-past-the-tile-dkdv", "long_bwd_dkdv.cuh",
        "p.causal ? min(keys.first, int(p.L)) / kQueries : 0",
        "p.causal && keys.first > 0 ? (int(p.L) + kQueries - 1) / kQueries : 0", LONG_CAUSAL,
    ),
    Mutation(
        "lse-of-missing-sequence", "short_sequences.cuh",
        "if (i >= p.L || first < 0) continue;", "if (i >= p.L) continue;", (edge("spatial_attention-odd-shared-context"),),
    ),
    # Of the steady kernels.
    Mutation(
        "stage-in-use", "steady_sequences.cuh", "load(place + plan.step, stage ^ 1);", "load(place + plan.step, stage);",
        (f"{ATTENTION}a_warp_with_several_places[9-1-32]",),
    ),
    Mutation(
        "copies-under-way", "steady_sequences.cuh", "ptx::copy_wait<1>();", "ptx::copy_wait<2>();",
        (steady("temporal_attention-steady-eight"),),
    ),
    Mutation(
        "rows-that-are-there", "steady_sequences.cuh", "from, row_ + j * kStep < there);", "from, row_ < there);",
        (steady("temporal_attention-steady-sixteen"),),
    ),
    Mutation(
        "row-of-the-last-step", "steady_sequences.cuh",
        "(j + 1) * kStep <= kRows ? row_ < kStep : row_ + j * kStep < kRows;", "row_ < kStep;",
        (steady("temporal_attention-steady-pair"),),
    ),
    Mutation(
        "head-of-the-pair", "short_sequences.cuh",
        "bias_head[s] = (n + s) * p.bias.stride_n;", "bias_head[s] = n * p.bias.stride_n;",
        (steady("temporal_attention-steady-eight"),),
    ),
    Mutation(
        "clip-of-a-place", "steady_sequences.cuh",
        "TileMask<S>(p, place.index[0], place.n + c), rS);", "TileMask<S>(p, 0, place.n + c), rS);",
        (f"{ATTENTION}a_warp_with_several_places[9-1-32]",),
    ),
    Mutation(
        "offset-of-a-place", "steady_sequences.cuh", "int64_t(i.index[1]) * rows.place[1]", "i.index[1] * rows.place[1]",
        (f"{EXTENT}offsets_past_2_to_the_31[False]",),
    ),
    Mutation("beyond-the-last-column", "short_sequences.cuh", "kD % kColumns == 0 || column - lane_id() % 4 * 2 < kD", "true",
             (f"{ATTENTION}a_place_leaves_nothing_to_the_next",)),
    Mutation("heads-that-are-no-pairs", "plan.h", "s.N % count != 0 || ", "", (steady("temporal_attention-steady-odd-heads"),)),
    Mutation(
        "lines-that-are-not-straight", "steady_sequences.cuh", "row.line_step == row.length.value() * row.step", "true",
        (steady("spatial_attention-steady-padded-lines"),),
    ),
    Mutation(
        "sum-of-one-place", "steady_bwd.cuh", "[e] += ds;", "[e] = ds;", (f"{ATTENTION}a_warp_with_several_places[9-1-32]",)
    ),
    Mutation(
        "heads-share-a-partial", "plan.h",
        "int64_t period = max_of<int64_t>(1, s.N);", "int64_t period = 1;",
        (f"{ATTENTION}warps_with_several_units_keep_their_heads_apart",),
    ),
    Mutation("stride-of-flags", "sequences.h", "+ i * stride_i];", "+ i];", STRIDED_MASK),
    Mutation("stride-of-clips-flags", "sequences.h", "data[index * stride_index", "data[index", STRIDED_MASK),
    Mutation(
        "causal-or-focus", "long_sequences.cuh",
        "(p.causal && j > i);", "(p.causal && !has_focus && j > i);", (edge("temporal_attention-long-causal-images"),),
    ),
    Mutation(
        "vector-of-lines", "to_sequences.cu",
        " && rows->row.line_step * element % bytes == 0;", ";", (edge("spatial_attention-padded-lines"),),
    ),
    Mutation(
        "vector-of-heads", "to_sequences.cu",
        " && divides(p.N, rows->stride_n);", ";", (edge("temporal_attention-padded-heads"),),
    ),
    Mutation(
        "end-of-chunk", "channel_stats.cuh",
        "end = min(p.pixels, start + kChunkPixels);", "end = start + kChunkPixels;", (f"{STATISTICS}statistics[tiny-float32]",),
    ),
    Mutation(
        "row-offset-of-store", "row_copies.cuh",
        "reinterpret_cast<Elements*>(gX + to.offset)", "reinterpret_cast<Elements*>(gX + int(to.offset))", FAR_ROWS,
    ),
    Mutation(
        "row-offset-of-partial", "long_bwd_dkdv.cuh",
        "if (j < p.S && d < p.D) to[j * p.D + d] = first;", "if (j < p.S && d < p.D) to[int(j) * int(p.D) + d] = first;",
        (hostile("spatial_attention-text-context"),),
        equivalent="partials are of less than 512 tiles of at most 64 keys, so that with at most 256 channels j D is below 2^23",
    ),
    Mutation(
        "compensated-sum", "long_bwd_bias.cuh",
        "const float value = shared.sums[row * Memory::kSumLd + column] - excess,",
        "const float value = shared.sums[row * Memory::kSumLd + column],",
        (f"{ATTENTION}a_bias_gradient_keeps_what_is_small_beside_its_largest_terms",), dtype="float32",
    ),
    Mutation(
        "barrier-between-units", "short_bwd.cuh",
        "    mover.store(p.dv, keys, shared.sG);\n    __syncwarp();\n", "    mover.store(p.dv, keys, shared.sG);\n",
        (f"{ATTENTION}warps_with_several_units_keep_their_heads_apart",),
        equivalent="each lane loads the next unit into the very places that it has just stored from, and before anyone else reads"
        " them, or writes beside them, there are barriers",
    ),
    # And of other kinds.
    Mutation(
        "carry-into-clips", "row_copies.cuh",
        "  s.index[0] += carry(s.index[1], p.by_size[1]);\n", "  carry(s.index[1], p.by_size[1]);\n",
        (edge("temporal_attention-odd-clips"),),
    ),
    Mutation(
        "angle-of-row-in-tile", "rotary.cuh",
        "p.rotary[int64_t(range.first + i) * pairs + pair]", "p.rotary[int64_t(i) * pairs + pair]",
        (hostile("temporal_attention-thirty-three"),),
    ),
    Mutation(
        "whole-turns-kept", "rotary_table.cuh",
        "float(turns - rint(turns))", "float(turns)", (f"{ATTENTION}angles_of_far_frames",), dtype="float32",
    ),
    Mutation(
        "vector-of-odd-halves", "row_copies.cuh",
        "} else if (sizeof(T) == 4 || p.vector_bytes == 4) {", "} else if (sizeof(T) == 4 || p.vector_bytes <= 4) {",
        (hostile("temporal_attention-one-channel"),),
    ),
    Mutation(
        "unused-columns-of-v", "long_fwd.cuh",
        "  mover.clear_unused(shared.sV, kKeys);\n", "", (hostile("temporal_attention-long-few-keys"),),
    ),
    Mutation(
        "sum-not-rescaled", "long_fwd.cuh",
        "      sum[half] *= rescale;\n", "", (hostile("spatial_attention-text-context"),),
    ),
    Mutation(
        "k-before-it-is-there", "long_fwd.cuh",
        "    ptx::copy_wait<0>();\n    __syncthreads();  // k is there",
        "    ptx::copy_wait<1>();\n    __syncthreads();  // k is there",
        (hostile("spatial_attention-text-context"),),
    ),
    Mutation(
        "rows-of-first-tile", "row_copies.cuh",
        "    stream.from += range.rows * rows.row.step;\n", "", (hostile("spatial_attention-text-context"),),
    ),
    Mutation(
        "bent-lines-as-straight", "row_copies.cuh",
        "const bool one_step = length", "const bool one_step = true || length", (f"{ATTENTION}lines_that_are_padded",),
    ),
    Mutation(
        "columns-of-another-class", "blocks.h", "? 80 : 96)", "? 80 : 128)", (f"{ATTENTION}the_fewest_columns_of_a_class[96]",)
    ),
    Mutation(
        "bias-of-first-keys", "long_fwd.cuh",
        "(p, score_rows.place.n, queries, first, shared.bias)", "(p, score_rows.place.n, queries, 0, shared.bias)",
        (edge("spatial_attention-long-context"),),
    ),
    Mutation(
        "bias-while-it-is-read", "long_fwd.cuh",
        "    ptx::copy_wait<0>();\n    __syncthreads();  // v is there; nobody reads k any more\n"
        "    if (first + kKeys < end) load_keys(first + kKeys);\n",
        "    if (first + kKeys < end) load_keys(first + kKeys);\n"
        "    ptx::copy_wait<0>();\n    __syncthreads();  // v is there; nobody reads k any more\n",
        (edge("spatial_attention-long-context"),),
    ),
    Mutation(
        "scale-of-lse", "long_fwd.cuh",
        "(scaled_late ? p.scale : 1.0f)", "1.0f", (hostile("spatial_attention-text-context"),),
    ),
    Mutation(
        "scaled-late-with-any-sign", "long_fwd.cuh",
        "p.bias.data == nullptr && p.scale > 0;", "p.bias.data == nullptr;",
        (f"{ATTENTION}a_scale_that_is_not_positive[-0.5]",),
    ),
    Mutation(
        "v-before-it-is-there", "short_fwd.cuh",
        "    ptx::copy_wait<0>();\n", "", (hostile("temporal_attention-eight-rel"),),
    ),
    Mutation(
        "window-across-lines", "long_sequences.cuh",
        "const int64_t a = (one ? first - first_line * length : 0) * line.step;",
        "const int64_t a = (first - first_line * length) * line.step;", (edge("spatial_attention-lines-across-tiles"),),
    ),
    Mutation(
        "focus-of-first-clip", "long_sequences.cuh",
        "p.focus_present.at(place.index[0], there)", "p.focus_present.at(0, there)", STRIDED_MASK,
    ),
    Mutation(
        "keys-of-first-sample", "row_flags.cuh",
        "p.key_mask.at(index, j)", "p.key_mask.at(0, j)", (hostile("spatial_attention-padded-context"),),
    ),
    Mutation(
        "keys-of-first-word", "long_sequences.cuh",
        "first_column + kWarp * word", "first_column", (hostile("spatial_attention-long-holed-context"),),
    ),
    Mutation(
        "keys-of-first-row", "long_sequences.cuh",
        "x = seen[half] ? x : -INFINITY;", "x = seen[0] ? x : -INFINITY;", (hostile("spatial_attention-long-holed-context"),),
    ),
    Mutation(
        "end-of-seen-keys", "long_sequences.cuh",
        "return min(end, first + kWarp);", "return min(end, max(kWarp, first));",
        (hostile("spatial_attention-long-padded-context"),),
    ),
    Mutation(
        "keys-seen-late-in-a-block", "long_bwd_dkdv.cuh",
        "for (int j = 0; j < rows; j += kWarp) seen", "for (int j = 0; j < kWarp; j += kWarp) seen",
        (edge("spatial_attention-late-keys"),),
    ),
    Mutation(
        "diagonal-past-the-keys", "long_bwd_bias.cuh",
        "min(there_rows, there_keys + rows - 1 - diagonal)", "min(there_rows, kKeys + rows - 1 - diagonal)",
        (hostile("temporal_attention-thirty-three"),),
    ),
    Mutation(
        "last-tile-has-the-entry", "long_bwd_bias.cuh",
        "if (entry >= 0) gTable[entry] += sum;\n      }\n    }\n", "if (entry >= 0) gTable[entry] = sum;\n      }\n    }\n",
        (hostile("spatial_attention-many-rows"),),
    ),
    Mutation(
        "places-past-the-last", "long_bwd_bias.cuh",
        "end_place = min(places, first_place + per_chunk);", "end_place = first_place + per_chunk;",
        (f"{ATTENTION}blocks_with_several_frames_add_their_gradients",),
    ),
    Mutation(
        "partial-of-odd-channels", "long_bwd_dkdv.cuh",
        "if (j < p.S && d + 1 < p.D)", "if (j < p.S && d < p.D)", (edge("spatial_attention-odd-shared-context"),),
    ),
    Mutation(
        "stage-that-is-read", "long_bwd_dkdv.cuh",
        "load_queries(step + 1, 1 - stage);", "load_queries(step + 1, stage);", (hostile("temporal_attention-thirty-three"),),
    ),
    Mutation(
        "group-of-first-clip", "long_bwd_dkdv.cuh",
        "return (b * members + member) * p.N + group - b * p.N;", "return member * p.N + group - b * p.N;",
        (hostile("spatial_attention-shared-context"),),
    ),
    Mutation(
        "last-slice", "bias_tables.cuh",
        "other < kSlices; ++other", "other < kSlices - 1; ++other", (hostile("temporal_attention-odd-hw"),),
    ),
    Mutation(
        "last-unit", "plan.h",
        "plan.units = ceil_div(s.sequences(), plan.count);", "plan.units = s.sequences() / plan.count;",
        (hostile("temporal_attention-one-frame"),),
    ),
    Mutation(
        "mask-of-missing-sequence", "short_sequences.cuh",
        "const SequenceIndex place = s < there ? neighbour(p, first, s) : first;",
        "const SequenceIndex place = neighbour(p, first, s);", (edge("temporal_attention-lone-sequence"),),
    ),
    Mutation(
        "entry-past-the-line", "row_copies.cuh",
        "return in_line < length && row < rows ? row : -1;", "return row < rows ? row : -1;",
        (edge("spatial_attention-sliced-table"),),
    ),
    Mutation(
        "lines-taken-for-even", "to_sequences.cu",
        "const bool even = H == 1 || rows.stride_h == W * rows.stride_w;", "const bool even = true;",
        (edge("spatial_attention-padded-lines"),),
    ),
    Mutation(
        "origin-of-frame-table", "to_sequences.cu",
        "moved(b, (p.T - 1) * b.stride_1)", "moved(b, p.T - 1)", (edge("temporal_attention-sliced-table"),),
    ),
    Mutation(
        "origin-of-pixel-table", "to_sequences.cu",
        "(p.H - 1) * b.stride_0 + (p.W - 1) * b.stride_1)", "(p.H - 1) * b.stride_0 + (p.W - 1))",
        (edge("spatial_attention-sliced-table"),),
    ),
    Mutation(
        "moments-of-nothing", "channel_stats.cuh",
        "  if (b.count == 0) return;\n", "", (f"{STATISTICS}statistics[one-pixel-float32]",),
    ),
    Mutation(
        "variance-between-chunks", "channel_stats.cuh",
        "(gChunk[1] + deviation * deviation)", "gChunk[1]", (f"{STATISTICS}statistics[chunks-float32]",),
    ),
    Mutation(
        "pixels-that-are-not-there", "channel_stats.cuh", "k < count ? x.value[i] - rPivot.value[i] : A(0)",
        "x.value[i] - rPivot.value[i]", (f"{STATISTICS}statistics[tiny-float32]",),
    ),
    Mutation(
        "channels-of-statistics", "channel_stats.cuh", "first < end && channels > 0;", "first < end;",
        (norm_edge("group-tiles"),),
    ),
    Mutation(
        "chunk-of-statistics", "channel_stats.cuh", "(int64_t(frame_chunk) * p.C + c) * 2", "(int64_t(frame) * p.C + c) * 2",
        (f"{STATISTICS}statistics[chunks-float32]",),
    ),
    # What the kernels of norm_act share.
    Mutation(
        "end-of-run", "norm_places.cuh", "end = min(p.pixels, run * p.cut.run + p.cut.run);",
        "end = run * p.cut.run + p.cut.run;", (normed("group-frame"),),
    ),
    Mutation("frame-of-clip", "image.h", "i % frames_of_clip * stride_t", "i * stride_t", (normed("group-frame"),)),
    Mutation("row-of-frame", "images.h", "frame / frames_of_row", "frame", (normed("group-clip"),)),
    Mutation(
        "far-frame", "image.h", "i % frames_of_clip * stride_t", "i % frames_of_clip * int(stride_t)",
        (f"{NORMS}steps_past_2_to_the_31[t-group]",),
    ),
    Mutation(
        "odd-address", "image.h", "fits = fits && reinterpret_cast<uintptr_t>(one) % kPieceBytes == 0;", "(void)one;",
        (layout("an odd address", "group"),),
    ),
    Mutation("odd-rows", "image.h", " && divides(s.W, at->w);", ";", (layout("odd pixels", "none"),)),
    Mutation("odd-channels", "image.h", "channels * bytes % kPieceBytes == 0", "true", PARTS_OF_PIECES),
    Mutation(
        "uneven-rows", "image.h", "s.H == 1 || stride.h == s.W * stride.w", "true", (layout("part of the pixels", "layer"),)
    ),
    Mutation("warps-of-a-team", "team.cuh", "team.size <= kWarp", "true", (norm_edge("layer-warps"),)),
    Mutation(
        "channels-behind-the-last", "norm_places.cuh", "c + (kAligned ? 0 : i) < p.C", "c < p.C", (normed("layer", "float32"),)
    ),
    Mutation(
        "pieces-behind-the-last", "norm_places.cuh", "c + (kAligned ? 0 : i) < p.C", "c + (kAligned ? -c : i) < p.C",
        (norm_edge("layer-runs"),),
    ),
    Mutation(
        "other-by-x", "norm_places.cuh", "gOther + p.other.pixels.at(pixel), at", "gOther + p.x.pixels.at(pixel), at",
        (layout("part of the pixels", "group"),),
    ),
    Mutation(
        "end-of-pixels", "norm_places.cuh", "if (pixel < at.end) body", "body", (norm_edge("group-tiles"),)
    ),
    Mutation(
        "pixels-in-flight", "norm_places.cuh", "first += kInFlight * at.rows", "first += at.rows", (normed("several-runs"),)
    ),
    # Its table.
    Mutation("variance-between-channels", "norm_table.cuh", "one.y + deviation * deviation", "one.y", (normed("group-frame"),)),
    Mutation(
        "clip-of-row", "norm_table.cuh", "int64_t(row / rows_of_clip) * C + c", "int64_t(row) * C + c",
        (norm_edge("clips-of-frames"),),
    ),
    Mutation(
        "frames-of-clip", "norm_table.cuh", "int64_t(row) * frames_of_row * C", "int64_t(row) * C", (normed("group-clip"),)
    ),
    Mutation("channels-of-warp", "norm_table.cuh", "c < first_c + width; c += team.size", "c < first_c + width; c += width",
             (norm_edge("layer-warps"),)),
    # Forward.
    Mutation(
        "tiles-of-channels", "norm_act_fwd.cuh", "  if (at.channels <= 0) return;\n", "", (norm_edge("group-tiles"),)
    ),
    Mutation(
        "frame-of-out", "norm_act_fwd.cuh", "int64_t(at.frame) * p.pixels * p.C", "at.frame * p.pixels * p.C",
        (f"{NORMS}many_frames_and_offsets_past_2_to_the_31[group]",),
    ),
    Mutation(
        "pixel-of-out", "norm_act_fwd.cuh", "gOut + int64_t(pixel) * p.C", "gOut + pixel * p.C",
        (f"{NORMS}a_frame_past_2_to_the_31[group]",),
    ),
    Mutation("alignment-of-residual", "norm_act_fwd.cu", "{p.x, p.residual, p.out}", "{p.x, p.out}",
             (layout("an odd address", "layer"),)),
    Mutation(
        "pixels-of-teams", "norm_places.cuh", "is_there = index < int64_t(p.frames) * p.pixels;", "is_there = true;",
        (normed("layer"),),
    ),
    Mutation(
        "residual-of-frame", "norm_act_fwd.cuh", "(at.frame, p.frames_of_clip) + p.other.pixels.at(at.pixel) :",
        "(at.frame, p.frames_of_clip) + p.x.pixels.at(at.pixel) :", (layout("part of the pixels", "layer"),),
    ),
    Mutation("index-of-out", "norm_act_fwd.cuh", "at.index * p.C + c", "int(at.index) * p.C + c",
             (f"{NORMS}many_frames_and_offsets_past_2_to_the_31[layer]",)),
    # Backward.
    Mutation("rows-of-sums", "team.cuh", "half >= columns;", "half > columns;", (normed("group-frame"),)),
    Mutation("run-of-sums", "norm_act_bwd.cuh", "* p.cut.runs + at.run) * 2", "* p.cut.runs) * 2", (norm_edge("group-tiles"),)),
    Mutation(
        "gradient-by-x", "norm_act_bwd.cuh", "const T* gOther = gGrad + p.other.pixels", "const T* gOther = gGrad + p.x.pixels",
        (layout("part of the pixels", "layer"),),
    ),
    Mutation("sums-of-run", "norm_act_bwd.cuh", "i < runs * width;", "i < width;", (norm_edge("clip-tiles", "float32"),)),
    Mutation("deviation-of-sums", "norm_act_bwd.cuh", "n * gRow[kRstd * C + c]", "n", (normed("group-frame"),)),
    Mutation("row-of-sums", "norm_act_bwd.cuh", "int64_t(row) * runs * 2 * C", "int64_t(row) * 2 * C", (normed("group-clip"),)),
    Mutation("what-x-takes", "norm_act_bwd.cuh", " - centred * rOfX[i]", "", (normed("group-frame"),)),
    Mutation(
        "frame-of-dx", "norm_act_bwd.cuh", "int64_t(at.frame) * p.pixels * p.C", "at.frame * p.pixels * p.C",
        (f"{NORMS}many_frames_and_offsets_past_2_to_the_31[group]",),
    ),
    Mutation(
        "pixel-of-dx", "norm_act_bwd.cuh", "gDx + int64_t(pixel) * p.C, dx", "gDx + pixel * p.C, dx",
        (f"{NORMS}a_frame_past_2_to_the_31[none]",),
    ),
    Mutation(
        "alignment-of-gradient", "norm_act_bwd.cu", "{&p.stride_grad, &p.stride_x}", "{&p.stride_x}",
        (layout("odd pixels", "layer"),),
    ),
    Mutation("end-of-dx", "norm_act_bwd.cuh", " || pixel >= end", "", (normed("layer"),)),
    Mutation("mean-of-rms", "norm_act_bwd.cuh", "p.centred ? sum_of_team(mean_1", "true ? sum_of_team(mean_1", (normed("rms"),)),
    Mutation("sums-of-a-run", "norm_act_bwd.cuh", "p.sums + int64_t(blockIdx.x) * 2", "p.sums + int64_t(frame) * 2",
             (norm_edge("layer-runs"),)),
    Mutation(
        "first-of-slices", "norm_act_bwd.cuh", "is_there; run += kSlices", "is_there; run += runs", (norm_edge("many-frames"),)
    ),
    Mutation("sums-of-clip", "norm_act_bwd.cuh", "(b * runs + run) * 2", "run * 2", (normed("group-frame"),)),
    Mutation("scale-of-weight", "norm_act_bwd.cuh", "dweight += factor * rSums", "dweight += rSums", (normed("one-group"),)),
    # Of the convolutions: a tile with its halo.
    Mutation(
        "norm-of-the-padding", "halo.cuh", "if (there) prepare_piece<kWide, T>(sHalo", "prepare_piece<kWide, T>(sHalo",
        (convolved("spatial-group"),),
    ),
    Mutation("line-of-halo", "halo.cuh", "at.line + down - 1,", "at.line + down,", (convolved("temporal-plain"),)),
    Mutation("column-of-halo", "halo.cuh", "down * width - kAcross / 2", "down * width - 1", (convolved("temporal-plain"),)),
    Mutation("elements-of-a-copy", "halo.cuh", "from + element, element < count)", "from + element, true)",
             (conv_edge("narrow-tiles", "float32"),), "float32"),
    Mutation("mix-of-frame", "halo.cuh", "1 - p.mix[frame]", "1 - p.mix[0]", (conv_edge("mixed-tiles"),)),
    Mutation("row-of-table", "planes.h", "int64_t(frame / frames_of_row)", "int64_t(frame)", (convolved("temporal-clip"),)),
    Mutation("step-of-lines", "planes.h", "return line * stride_line +", "return int(line * stride_line) +",
             (f"{CONV}strides_past_2_to_the_31[spatial]",)),
    Mutation("step-of-planes", "planes.h", "plane % planes_of_clip * stride_plane;",
             "int(plane % planes_of_clip * stride_plane);",
             (f"{CONV}results_past_2_to_the_31[spatial]",)),
    Mutation("alignment-of-lines", "to_planes.cuh", "divides(s.H, stride.h)", "true",
             (f"{CONV}every_image_has_its_own_strides[lines at odd steps-float16-spatial]",), "float16"),
    # Their product.
    Mutation("taps-transposed", "conv_product.cuh", "tap / kAcross * p.tiling.halo_columns.value() + tap % kAcross;",
             "tap % kAcross * p.tiling.halo_columns.value() + tap / kAcross;",
             (convolved("spatial-plain"),)),
    Mutation("halo-in-use", "conv_product.cuh", "halo.copy(sNext,", "halo.copy(sHalo,", (conv_edge("tiles"),)),
    Mutation("normalised-too-early", "conv_product.cuh", "if (tap == kTaps - 1 && chunk", "if (tap == 1 && chunk",
             (conv_edge("temporal-tiles"),)),
    Mutation("weight-of-the-next-chunk", "calls.h", "chunk - 2 * tap_line -", "chunk - tap_line -", (conv_edge("tiles"),)),
    Mutation("weight-of-the-next-line", "calls.h", "tap_line - (across - 1) * tap_column),", "tap_line),",
             (convolved("spatial-plain"),)),
    Mutation("columns-beyond-the-plane", "conv_product.cuh", " && pixel.column < p.columns};", "};",
             (convolved("several-tiles"),)),
    Mutation("rows-beyond-the-tile", "conv_product.cuh", "{pixel.line, pixel.column, down < p.tiles.lines && ",
             "{pixel.line, pixel.column, ", (conv_edge("tiles"),)),
    Mutation("offset-of-weight", "conv_product.cuh", "(first_row + row) * p.weight.stride_row + k_",
             "int((first_row + row) * p.weight.stride_row) + k_", (f"{CONV}weights_past_2_to_the_31[8-out-spatial]",)),
    # What follows it.
    Mutation("residual-alone", "conv.cuh", "load_acc(pair) + factor * y[0]", "load_acc(pair) + y[0]",
             (convolved("several-tiles"),)),
    Mutation("temb-of-clip", "conv.cuh", "p.temb + int64_t(frame) * p.Co", "p.temb + int64_t(at.plane) * p.Co",
             (convolved("temporal-clip"),)),
    Mutation("apart-of-groups", "conv.cuh", " + pixels[i] * (deviation * deviation)", "",
             (f"{CONV}statistics_of_out[3-17-19-spatial-bfloat16]",)),
    Mutation("pixels-of-a-group", "conv.cuh", "pixels[group] = count;", "pixels[group] = 16;",
             (f"{CONV}statistics_of_out[3-17-19-spatial-bfloat16]",)),
    Mutation("dots-of-one-warp", "conv.cuh", "rows[0][i] + rows[1][i]", "rows[0][i]", (conv_edge("mixed-tiles"),)),
    Mutation("deviation-of-du", "conv_du.cuh", "x * gRow[norms::kRstd * p.Co + c]", "x",
             (convolved("spatial-group"),)),
    Mutation("du-beyond-the-image", "conv_du.cuh", "!pixels(first + product::row_of_pair(half)).there", "false",
             (convolved("spatial-group"),)),
    Mutation("sums-of-a-tile", "conv_du.cuh", "int64_t(place.down) * 2 * p.Co + c", "int64_t(at.plane) * 2 * p.Co + c",
             (conv_edge("tiles"),)),
    Mutation("offset-of-turned-taps", "weight_pack.cuh", "kTaps - 1 - tap) * kTap", "tap) * kTap", (convolved("spatial-plain"),)),
    Mutation("row-of-packed", "weight_pack.cuh", "(int64_t(tap) * rows + first_row + row) * K",
             "((tap * rows) + first_row + row) * K",
             (f"{CONV}weights_past_2_to_the_31[8-out-spatial]",)),
    Mutation("end-of-packed", "weight_pack.cuh", " || first_k + k >= K", "", (convolved("spatial-plain"),)),
    Mutation("width-of-last-tile", "conv_sums.cuh", "min(tiles.columns, columns - over * tiles.columns)", "tiles.columns",
             (f"{CONV}statistics_of_out[5-1-133-spatial-bfloat16]",)),
    Mutation("line-of-dots", "conv_sums.cuh", "line % p.tiles.lines;", "line;", (conv_edge("many-frames"),)),
    Mutation("runs-of-a-frame", "conv_sums.cuh", "int64_t(run) * frames_of_clip", "run", (conv_edge("parts"),)),
    Mutation("mix-of-bias", "conv_sums.cuh", "sum *= 1 - mix[frame];", "sum *= 1;", (convolved("several-tiles"),)),
    # The gradient of their weight.
    Mutation("part-of-pixels", "weight_gradient.cuh", "min(first + p.part, p.planes", "min(p.planes * t.tiles.count(), p.planes",
             (conv_edge("parts"),)),
    Mutation("gradient-beyond-the-tile", "weight_gradient.cuh", "row < pixels && line < t.lines", "line < t.lines",
             (conv_edge("parts"),)),
    Mutation("gradient-before-its-mix", "weight_gradient.cuh", "    gradient.prepare(sGradient, TilePlace(t, tile));\n", "",
             (convolved("several-tiles"),)),
    Mutation("halo-of-a-pixel", "weight_gradient.cuh", "i + t.tile_columns.quotient(i) * (kAcross - 1)", "i",
             (convolved("spatial-plain"),)),
    Mutation("row-of-parts", "weight_gradient.cuh", "(int64_t(part) * kTaps + tap) * p.Co + co) * p.columns",
             "(part * kTaps + tap) * p.Co + co) * p.columns", (f"{CONV}weights_past_2_to_the_31[32-dweight-spatial]",)),
    Mutation("sum-of-parts", "weight_gradient.cuh", "part < count && ci < Ci", "part < 1 && ci < Ci", (conv_edge("parts"),)),
    # Of GEGLU and the matrix product that it is on.
    Mutation("gate-of-the-other-half", "geglu_fwd.cuh", "a[0] * b[0] * cdf(b[0])", "a[0] * b[0] * cdf(a[0])", (gated("even"),)),
    Mutation(
        "tail-of-incoming-gradient", "geglu_bwd.cuh",
        "to.stride_grad, rows}, p.E - at.e, to.grad_bytes)", "to.stride_grad, rows}, to.half - at.e, to.grad_bytes)",
        (gated("plain"),),
    ),
    Mutation(
        "halves-of-gradients-swapped", "geglu_bwd.cuh",
        "to.dab + (2 * row + i) * to.half + at.e", "to.dab + (2 * row + 1 - i) * to.half + at.e", (gated("even"),),
    ),
    Mutation(
        "offset-of-gradients", "geglu_bwd.cuh",
        "to.dab + (2 * row + i) * to.half + at.e", "to.dab + int((2 * row + i) * to.half) + at.e",
        (f"{GEGLU}rows_past_2_to_the_31",),
    ),
    Mutation(
        "first-k-of-a-part", "geglu_bwd.cuh",
        "p.stride_other, int(at.first), p.halves,", "p.stride_other, 0, p.halves,", (gated("even"),),
    ),
    Mutation(
        "offset-of-k", "tile_product.cuh",
        "return {data + (k + i) * stride + column,", "return {data + int((k + i) * stride) + column,",
        (f"{GEGLU}rows_past_2_to_the_31",),
    ),
    # Of norm_linear, and of what it has in the product.
    Mutation(
        "changed-after-the-barrier", "tile_product.cuh",
        "copy_b.arrived(sStages + stage * kStageBytes + kOfA, chunk * kChunk<T>);\n    __syncthreads();",
        "(__syncthreads(), copy_b.arrived(sStages + stage * kStageBytes + kOfA, chunk * kChunk<T>));\n"
        "    if constexpr (!kIsChanged<B>) __syncthreads();",
        (projected("wide"),),
    ),
    Mutation(
        "zeros-are-changed", "tile_product.cuh",
        "if (!loader_.at(rows_[i], column_, k).there) continue;", "if (false) continue;", (projected("wide"),),
    ),
    Mutation(
        "rows-of-k-that-change", "tile_product.cuh",
        "first_row + i + (Loader::kAlongK ? 0 : k)", "first_row + i", (projected("parts-of-clips"),),
    ),
    Mutation(
        "columns-that-change", "tile_product.cuh",
        "first_column + at + (Loader::kAlongK ? k : 0)", "at + (Loader::kAlongK ? k : 0)", (projected("wide"),),
    ),
    Mutation(
        "parts-of-the-first-clip", "product_parts.cuh",
        "number / p.parts_of_span * p.span + of_span", "of_span", (projected("parts"),),
    ),
    Mutation("deviation-of-pixel", "numbers.cuh", "(values[j] - of_pixel.x) * of_pixel.y", "(values[j] - of_pixel.x)",
             (projected("layer"),)),
    Mutation("position-of-frame", "numbers.cuh", "int64_t(frame % T) * C", "int64_t(frame) * C", (projected("group-frame"),)),
    Mutation(
        "gate-of-the-tile", "norm_linear_fwd.cuh", "p.pixels.quotient(min(row + in_rows, p.M - 1))", "p.pixels.quotient(row)",
        (projected("wide"),),
    ),
    Mutation(
        "residual-of-rows-that-are-none", "norm_linear_fwd.cuh",
        "p.stride_residual, p.M - row}, columns", "p.stride_residual, 16}, columns", (projected("sliced"),),
    ),
    Mutation(
        "run-of-pixel-sums", "pixel_sums.cuh", "frame / frames_of_clip * runs + run", "frame / frames_of_clip * runs",
        (projected("parts"),),
    ),
    Mutation("bias-of-dgate", "norm_linear_bwd.cuh", "if (p.bias) dgate += p.bias[co] * sum;", "", (projected("parts"),)),
    Mutation(
        "clip-of-sums", "norm_linear_bwd.cuh", "(int64_t(b) * p.tables + i) * p.Co", "int64_t(i) * p.Co", (projected("parts"),)
    ),
    Mutation(
        "offset-of-projection", "norm_linear_fwd.cuh", "p.out + int64_t(row) * p.Co + column", "p.out + row * p.Co + column",
        (f"{LINEAR}rows_and_results_past_2_to_the_31[none]",),
    ),
]  # fmt: skip


def copy_with(mutation: Mutation, folder: Path) -> Path:
    """csrc with the fault, without the kernels of the other dtypes."""
    csrc = folder / "csrc"
    shutil.copytree(CSRC, csrc)
    place = mutation.place(csrc)
    place.write_text(place.read_text().replace(mutation.old, mutation.new))
    others = [name for dtype, name in TYPES.items() if dtype != mutation.dtype]
    called = re.compile(rf"^ *if \(dtype == DType::\w+\) return body\(TypeTag<({'|'.join(others)})>{{}}\);\n", re.M)
    for name in others:
        for path in csrc.rglob(f"instantiations/*_{name.lower()}.cu"):
            path.unlink()
    dispatch = csrc / "common" / "dispatch.h"
    left, removed = called.subn("", dispatch.read_text())
    if removed != len(others):
        raise ValueError(f"{dispatch.name}: {removed} dtypes of {others} could be taken out of dispatch_served")
    dispatch.write_text(left)
    return csrc


def run(mutation: Mutation, cache: Path, tests: list[str]) -> tuple[bool, str]:
    """(whether the tests find it, the first that does and what it says)."""
    with tempfile.TemporaryDirectory() as folder:
        csrc = copy_with(mutation, Path(folder))
        variables = {"PTXSIM_CSRC": str(csrc), "PTXSIM_COUNTS": "0", "XDG_CACHE_HOME": str(cache)}
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=short", "-p", "no:cacheprovider", *tests]
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True)
    # A copy that does not compile, or tests that are not there, are no finding.
    if done.returncode not in (0, 1) or "CalledProcessError" in done.stdout:
        raise RuntimeError(f"{mutation.name}: pytest ended with {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-1000:]}")
    test = re.search(r"^FAILED \S+::(\S+)", done.stdout, re.M)
    words = re.findall(r"^E +(?:\w*Error:|assert) (.*)", done.stdout, re.M)
    return done.returncode == 1, f"{test[1]}: {words[-1] if words else ''}" if test else ""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", metavar="NAME", action="append", help="this mutation alone; may be given again")
    parser.add_argument("--jobs", type=int, default=1, help="how many at once")
    parser.add_argument("--tests", nargs="+", help="arguments of pytest in place of each mutation's tests")
    options = parser.parse_args(arguments)
    chosen = [mutation for mutation in MUTATIONS if not options.only or mutation.name in options.only]
    for mutation in chosen:
        mutation.place(CSRC)

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        # What the copies compile goes to a cache that is thrown away; what they share with csrc is found where it is.
        cache = Path(folder, "vdiff_kernels", "ptxsim")
        shutil.copytree(cache_folder(), cache, copy_function=os.symlink)
        results = pool.map(lambda mutation: run(mutation, Path(folder), options.tests or list(mutation.tests)), chosen)
        missed = killed = 0
        for mutation, (found, words) in zip(chosen, results):
            killed += found
            missed += not found and not mutation.equivalent
            print(f"{'killed' if found else 'equivalent' if mutation.equivalent else 'SURVIVED':10}  {mutation.name}", flush=True)
            print(f"            {words or mutation.equivalent}", flush=True)
    equivalent = len(chosen) - killed - missed
    print(f"{killed} of {len(chosen) - equivalent} killed; {equivalent} equivalent")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
