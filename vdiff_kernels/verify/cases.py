"""The hostile named cases: few, each for one way in which a kernel goes wrong."""

from .inputs import ConvCase, GegluCase, LayerCase, LinearCase, NormCase, Pseudo3DCase, SpatialCase, StatsCase, TemporalCase

TEMPORAL_CASES = [
    TemporalCase("one-frame", T=1, D=33, N=3, H=1, W=1),
    TemporalCase("odd-hw", B=2, T=5, H=5, W=7, N=3, D=40, bias="dense"),
    TemporalCase("eight-rel", T=8, D=64, bias="rel", layout="packed"),
    TemporalCase("sixteen-causal", T=16, H=3, D=16, bias="rel", causal=True),
    TemporalCase("seventeen", T=17, N=1, D=80, bias="dense", rotary=32),
    TemporalCase("thirty-three", T=33, H=1, W=2, D=8, bias="rel", rotary=8, layout="channels_first"),
    TemporalCase("one-channel", T=6, D=1, N=5, bias="dense"),
    TemporalCase("widest-head", T=3, H=1, W=1, N=1, D=256, rotary=2),
    TemporalCase("d160", T=7, H=1, W=2, N=1, D=160, layout="sliced"),
    TemporalCase("few-keys", B=2, T=9, S=4, D=12, bias="rel", causal=True),
    TemporalCase("many-keys", T=3, S=11, D=12, bias="dense"),
    TemporalCase("masked-rows", T=6, N=2, D=8, bias="masked"),
    TemporalCase("expanded-bias", T=5, N=3, D=8, bias="expanded"),
    TemporalCase("image-frames", B=2, T=9, N=2, D=32, focus="frames", bias="rel"),
    TemporalCase("focus-clips", B=3, T=4, D=8, focus="clips", rotary=4, causal=True),
    TemporalCase("large-scores", T=5, D=16, magnitude=20.0, scale=1.0),
    TemporalCase("float16-limit", T=9, D=16, magnitude=60.0, scale=1.0),
    TemporalCase("long-d160", T=34, H=1, W=1, N=1, D=160, bias="dense", causal=True, rotary=32),
    TemporalCase("long-few-keys", T=40, S=20, H=1, W=1, N=2, D=33, bias="rel", causal=True),
    TemporalCase("long-image-frames", B=2, T=36, H=1, W=1, N=1, D=80, focus="frames"),
    TemporalCase("no-batch", B=0, T=4, bias="dense"),
]
SPATIAL_CASES = [
    SpatialCase("one-pixel", T=2, H=1, W=1, D=33, N=3),
    SpatialCase("odd-hw-rel", B=2, T=3, H=5, W=7, N=3, D=40, bias="rel"),
    SpatialCase("one-row", H=1, W=17, D=80, bias="rel", layout="packed"),
    SpatialCase("dense-bias", T=2, H=4, W=4, D=64, bias="dense", layout="channels_first"),
    SpatialCase("masked-rows", T=2, H=3, W=3, D=8, bias="masked"),
    SpatialCase("expanded-bias", T=2, H=3, W=3, N=3, D=8, bias="expanded"),
    SpatialCase("widest-head", T=1, H=3, W=1, N=1, D=256),
    SpatialCase("one-token", B=2, T=3, H=3, W=3, D=8, context="shared", S=1),
    SpatialCase("shared-context", B=2, T=3, H=3, W=5, N=3, D=12, context="shared", S=7, bias="dense"),
    SpatialCase("frame-context", B=2, T=3, H=3, W=5, D=20, context="frames", S=5),
    SpatialCase("padded-context", B=3, T=2, H=3, W=5, N=3, D=12, context="shared", S=7, bias="dense", key_mask="padding"),
    SpatialCase("holed-frame-context", B=2, T=3, H=2, W=5, D=20, context="frames", S=5, key_mask="holes"),
    SpatialCase("large-scores", T=1, H=4, W=4, D=16, magnitude=20.0, scale=1.0),
    SpatialCase("float16-limit", T=1, H=4, W=9, N=1, D=16, magnitude=55.0, scale=1.0),
    SpatialCase("text-context", T=3, H=3, W=12, N=1, D=80, context="shared", S=77),
    SpatialCase("long-padded-context", B=3, T=2, H=1, W=5, N=1, D=8, context="shared", S=77, key_mask="padding"),
    SpatialCase("long-holed-context", B=2, T=1, H=1, W=6, N=1, D=12, context="frames", S=205, bias="dense", key_mask="holes"),
    SpatialCase("long-masked-rows", T=2, H=5, W=7, N=1, D=40, bias="masked"),
    SpatialCase("long-expanded-bias", T=1, H=5, W=9, N=3, D=8, bias="expanded"),
    SpatialCase("long-widest-head", T=1, H=3, W=11, N=1, D=256, bias="rel", layout="channels_first"),
    SpatialCase("many-rows", T=1, H=16, W=16, N=1, D=8, bias="rel"),
    SpatialCase("no-batch", B=0, bias="rel"),
]
# At the edges of the CUDA kernels' tiles, units and vectors, as small as they are reached.
TILE_CASES = [
    # More than one tile of queries and of keys; of each query, the keys at the diagonal have all the weight.
    TemporalCase("long-causal", T=72, H=1, W=1, N=1, D=8, bias="banded", causal=True),
    TemporalCase("long-causal-images", T=40, H=1, W=1, N=1, D=8, causal=True, focus="frames"),
    # A tile that begins within a line of pixels and ends in another one, whose first pixel has the first entry of the table.
    SpatialCase("lines-across-tiles", T=1, H=11, W=7, N=1, D=8, bias="rel_transposed"),
    # A tile of keys whose first half nobody sees.
    SpatialCase("late-keys", T=1, H=1, W=3, N=1, D=8, context="shared", S=77, key_mask="late"),
    # A pair of short sequences of two clips.
    TemporalCase("odd-clips", B=3, T=4, H=1, W=3, N=1, D=8, focus="clips"),
    # A pair of short sequences of which one is missing; of an odd number of channels, with chunks of frames that are merged.
    TemporalCase("lone-sequence", T=4, H=1, W=1, N=1, D=8, focus="frames"),
    SpatialCase("odd-shared-context", T=3, H=2, W=2, N=1, D=5, context="shared", S=5, bias="dense"),
    SpatialCase("padded-lines", T=1, H=3, W=4, N=1, D=8, layout="padded_lines"),
    TemporalCase("padded-heads", T=4, H=1, W=1, N=2, D=8, layout="padded_heads"),
    # Strides of q that are not k's, nor v's, nor the incoming gradient's; of v alone.
    TemporalCase("mixed-layouts", B=2, H=1, W=2, layout=("padded_heads", "padded_lines", "sliced")),
    TemporalCase("other-values", H=1, W=1, layout=("contiguous", "contiguous", "padded_heads")),
    SpatialCase("mixed-layouts", B=2, T=2, H=2, bias="rel", layout=("padded_lines", "sliced", "padded_heads")),
    # Whole lines of an odd number.
    SpatialCase("odd-lines", T=2, H=3, W=16, N=1, D=4, bias="rel"),
    # Frames and lines enough that the sum of their parts of a table's gradient takes more than one step.
    SpatialCase("many-frames", T=9, H=2, W=2, N=1, D=4, bias="rel"),
    # Long sequences of frames at several places of several clips, and of clips of which one is images.
    TemporalCase("long-places", B=2, T=66, S=3, H=1, W=2, D=4, bias="rel", layout=("padded_heads", "padded_lines", "sliced")),
    TemporalCase("long-clips", B=2, T=65, H=1, W=2, N=1, D=4, focus="clips", rotary=2, causal=True),
    TemporalCase("sliced-table", T=5, H=1, W=1, N=2, D=8, bias="rel_sliced"),
    SpatialCase("sliced-table", T=1, H=3, W=4, N=2, D=8, bias="rel_sliced"),
]
# Of the head dims that CUDA kernels of short sequences are compiled for, with what hides keys, and layouts.
STEADY_CASES = [
    TemporalCase("steady-eight", B=2, T=7, H=2, W=3, N=4, D=40, bias="rel", focus="clips"),
    # More places than a launch has warps, so that some have two.
    TemporalCase("steady-many-places", B=3, T=3, H=11, W=125, N=2, D=32, bias="rel", focus="clips"),
    TemporalCase("steady-eight-wide", T=8, S=5, H=1, W=2, N=2, D=80, bias="dense"),
    TemporalCase("steady-sixteen", T=14, H=3, W=2, N=3, D=64, bias="rel", causal=True),
    TemporalCase("steady-pair", B=2, T=16, H=1, W=3, N=4, D=40, bias="dense", focus="frames"),
    TemporalCase("steady-odd-heads", T=16, H=1, W=3, N=3, D=40),
    TemporalCase("steady-wide", T=13, H=1, W=3, N=2, D=80, bias="rel"),
    TemporalCase("steady-rotary", T=12, H=2, W=2, N=2, D=32, bias="rel", rotary=20),
    TemporalCase("steady-rows", T=25, S=31, H=1, W=3, N=2, D=64, bias="rel"),
    TemporalCase("steady-most-rows", T=32, H=2, W=1, N=2, D=32, bias="rel_sliced", causal=True, focus="frames"),
    TemporalCase("steady-layouts", B=2, T=10, H=2, W=2, N=2, D=80, layout=("padded_heads", "padded_lines", "sliced")),
    SpatialCase("steady-pixels", B=2, T=2, H=3, W=4, N=2, D=64, bias="rel"),
    SpatialCase("steady-padded-lines", T=2, H=3, W=4, N=1, D=32, layout="padded_lines"),
    SpatialCase("steady-context", B=3, T=2, H=2, W=3, N=2, D=40, context="shared", S=7, key_mask="padding"),
]
# At the edges of the CPU kernels' blocks: too long for a simulated GPU.
BLOCK_CASES = [
    # Queries are taken in blocks of up to 3 vectors, at most 96 at once; more than 128 keys in blocks of 64.
    TemporalCase("twenty-three", T=23, S=9, H=1, N=3, D=20, bias="rel"),
    TemporalCase("two-ranges", T=97, S=129, H=1, W=1, N=1, D=9, bias="dense", causal=True),
    TemporalCase("many-blocks", T=201, H=1, W=1, N=1, D=24, bias="rel", rotary=6, focus="frames"),
    TemporalCase("masked-blocks", T=70, S=140, H=1, W=1, N=2, D=8, bias="masked"),
    # Lines of whole vectors, whose offsets are read in place, and others; more queries than a task takes.
    SpatialCase("whole-lines", B=2, T=2, H=9, W=16, N=2, D=12, bias="rel"),
    SpatialCase("three-vectors", T=1, H=5, W=24, N=1, D=40, bias="rel"),
    SpatialCase("several-tasks", T=1, H=21, W=20, N=1, D=6, bias="rel"),
    SpatialCase("long-context", T=2, H=3, W=4, N=2, D=16, context="shared", S=150, bias="masked"),
]
STATS_CASES = [
    StatsCase("plain", B=2),
    StatsCase("large-mean", mean=100.0, layout="contiguous"),
    StatsCase("several-tiles", T=2, H=9, W=17, layout="sliced"),
    StatsCase("no-batch", B=0),
]
NORM_CASES = [
    NormCase("group-frame", B=2),
    NormCase("group-clip", B=2, scope="clip", residual=True, eps=1e-6),
    NormCase("group-of-one-channel", groups=8, act=None),
    NormCase("one-group", groups=1, modulated=True),
    NormCase("large-mean", C=16, mean=100.0),
    NormCase("one-value", T=1, H=1, W=1, C=4, groups=4, eps=1.0),
    NormCase("layer", norm="layer", C=33, B=2),
    NormCase("layer-adaptive", norm="layer", affine=False, modulated=True, act=None, layout="contiguous"),
    NormCase("rms", norm="rms", C=12, modulated=True, residual=True, B=2),
    NormCase("sliced", B=2, residual=True, layout="sliced"),
    NormCase("layer-sliced", norm="layer", B=2, residual=True, layout="sliced"),
    NormCase("several-runs", C=4, groups=2, T=1, H=33, W=37),
    NormCase("no-batch", B=0),
]
CONV_CASES = [
    ConvCase("spatial-plain", norm=None, act=None),
    ConvCase("temporal-plain", norm=None, act=None, kernel="temporal", bias=False),
    ConvCase("spatial-group", B=2, temb="clip", residual=True, Co=8),
    ConvCase("temporal-clip", B=2, T=5, scope="clip", kernel="temporal", temb="frame", residual=True, eps=1e-6),
    ConvCase("spatial-mix-frame", B=2, mix="frame", residual=True, layout="contiguous"),
    ConvCase("temporal-mix-clip", B=2, T=4, kernel="temporal", mix="clip", residual=True, temb="clip"),
    ConvCase("temporal-mix-scalar", kernel="temporal", mix="scalar", residual=True, scope="clip"),
    ConvCase("one-frame-temporal", T=1, kernel="temporal"),
    ConvCase("one-row", H=1, W=9, C=12, modulated=True),
    ConvCase("one-pixel", H=1, W=1, T=2, C=4, groups=2),
    ConvCase("rms-adaptive", norm="rms", C=33, Co=17, modulated=True),
    ConvCase("layer-temporal", norm="layer", kernel="temporal", C=10, act=None),
    ConvCase("wide", C=64, Co=64, H=5, W=7, T=2, groups=32),
    ConvCase("large-mean", C=16, mean=100.0),
    # A norm without activation, which a kernel may apply as it reads each tap: outside of the image there are zeros all the same.
    ConvCase("group-alone", act=None, scope="clip"),
    ConvCase("layer-alone", norm="layer", C=34, act=None, B=2, H=5, W=6),
    # Several tiles of pixels, the last one smaller; more channels in and out than one tile has.
    ConvCase("sliced", B=2, temb="frame", residual=True, layout="sliced"),
    ConvCase("several-tiles", B=2, T=2, H=9, W=17, C=20, Co=12, temb="frame", residual=True, mix="frame"),
    ConvCase("many-channels", T=1, C=136, Co=130, groups=8, H=3, W=4, residual=True),
    ConvCase("many-channels-temporal", T=3, C=136, Co=130, groups=8, H=2, W=3, kernel="temporal", residual=True),
    ConvCase("no-batch", B=0, temb="clip", residual=True),
]
LAYER_CASES = [
    LayerCase("plain", norm=None, biases=False, residual=None),
    LayerCase("seed", attention=TemporalCase("", B=2, T=5, H=3, W=3, N=3, D=8, bias="dense"), C=24, Co=24),
    LayerCase("inner-wider", attention=TemporalCase("", T=4, N=4, D=16, rotary=8, bias="rel"), C=10, Co=6, residual=None),
    LayerCase("animatediff", attention=TemporalCase("", T=6, N=2, D=5), C=10, Co=10, pos_emb=True),
    LayerCase("images", attention=TemporalCase("", B=2, T=6, N=2, D=8, focus="frames", causal=True), C=20, Co=20, norm="rms"),
    LayerCase("gated", attention=TemporalCase("", B=2, T=3, N=2, D=4), C=8, Co=6, gate=True, residual=None),
    LayerCase("latte", attention=SpatialCase("", B=2, T=3, H=3, N=2, D=5), C=10, Co=10, gate=True, norm="layer"),
    LayerCase("spatial", attention=SpatialCase("", T=3, H=3, W=5, N=2, D=6, bias="rel"), C=44, Co=44, norm="group", scope="clip"),
    LayerCase("no-batch", attention=SpatialCase("", B=0, N=2, D=6)),
    # One launch of Triton's in half types: several blocks of sequences, the last one smaller, of clips of several places.
    LayerCase(
        "whole", TemporalCase("", B=2, T=5, H=3, N=3, D=20, bias="rel", rotary=6), 33, 33, residual="x", layout="padded_lines"
    ),
    LayerCase(
        "whole-causal", TemporalCase("", T=17, H=1, W=3, N=2, D=16, causal=True), 20, 40, pos_emb=True, eps=0.5, layout="sliced"
    ),
    # On the CPU a layer is computed in blocks of rows, its backward in batches of blocks: several of each, the last ones smaller.
    LayerCase("many-blocks", attention=TemporalCase("", B=2, T=17, H=5, W=7, N=3, D=33, bias="rel", focus="frames"), C=70, Co=50),
    LayerCase("many-batches", attention=TemporalCase("", T=4, H=15, W=19, N=2, D=200, bias="dense"), C=24, Co=24, residual="x"),
    LayerCase("many-frames", attention=SpatialCase("", T=19, H=5, W=7, N=2, D=40, bias="rel"), C=36, Co=20),
]
PSEUDO3D_CASES = [Pseudo3DCase("plain", B=2), Pseudo3DCase("one-pixel", H=1, W=1, T=1, bias=False)]
GEGLU_CASES = [
    GegluCase("plain"),
    GegluCase("no-bias", (5, 33), E=16, bias=False),
    GegluCase("no-rows", (0, 8), E=4),
    # Of Triton's tiles, a group of rows that is whole and one that is not; two of columns and of channels.
    GegluCase("many-tiles", (1030, 67), E=70, padding=(5, 13)),
]
LINEAR_CASES = [
    LinearCase("plain", norm=None, bias=False),
    LinearCase("group-frame", B=2, pos_emb=True),
    LinearCase("group-clip", B=2, scope="clip", gate=True, residual=True),
    LinearCase("layer", norm="layer", C=33, Co=17, pos_emb=True, gate=True, residual=True),
    LinearCase("rms-adaptive", norm="rms", C=12, modulated=True, B=2, residual=True),
    LinearCase("large-mean", C=16, mean=100.0),
    LinearCase("sliced", B=2, gate=True, residual=True, layout="sliced"),
    LinearCase("padded-lines", norm=None, C=8, layout="padded_lines", gate=True),
    # Several tiles of pixels, the last one smaller, and of outputs and channels.
    LinearCase("many-tiles", norm="layer", T=2, H=9, W=17, C=40, Co=200, residual=True),
    LinearCase("no-batch", B=0, gate=True, residual=True),
]
CASES = [
    *TEMPORAL_CASES, *SPATIAL_CASES, *TILE_CASES, *STEADY_CASES, *BLOCK_CASES, *STATS_CASES, *NORM_CASES, *CONV_CASES,
    *LAYER_CASES, *PSEUDO3D_CASES, *LINEAR_CASES, *GEGLU_CASES,
]  # fmt: skip
