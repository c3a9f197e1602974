"""The sections of the page, each a list of paragraphs and tables."""

import statistics
import textwrap

from .rows import OURS, WRONG, Ceilings, Comparison, Days, dates, is_right, no_time

GROUPS_OF_CHECKS = ("variants", "hostile", "triton", "contract", "real", "models", "sanitizer")


def table(header: list[str], rows: list[list]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


class Notes:
    """Of a table: why a cell is what it is, each reason once."""

    def __init__(self):
        self.reasons: list[str] = []

    def mark(self, reason: str) -> str:
        reason = one_line(reason, 170)
        if reason not in self.reasons:
            self.reasons.append(reason)
        return f"({self.reasons.index(reason) + 1})"

    def lines(self) -> list[str]:
        return ["\n".join(f"- ({i}) {reason}" for i, reason in enumerate(self.reasons, 1))] if self.reasons else []


def number(value: float | None) -> str:
    """About three digits."""
    return "-" if value is None else f"{value:,.{0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2}f}"


def percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def one_line(text: str, limit: int = 300) -> str:
    return textwrap.shorten(text, limit, placeholder=" ...").replace("<", "&lt;")


# ------------------------------------------------------------------------------------------------------------ environment


def environment(days: Days, ceilings: Ceilings) -> list[str]:
    gpu, versions = days.fact("gpu"), days.fact("versions")
    rows = [["GPU", gpu.get("gpu", "none")]]
    processor = days.fact("processor").get("processor")
    rows += [["processor", processor]] if processor else []
    if gpu:
        memory = f"{gpu['bytes'] / 2**30:.0f} GiB, L2 {gpu['L2_bytes'] / 2**20:.0f} MiB"
        rows.append(["of it", f"{gpu['multiprocessors']} multiprocessors, {memory}"])
        rows.append(["nvidia-smi, before anything ran", "; ".join(f"{name} {value}" for name, value in smi(gpu).items())])
    library = days.fact("library").get("sha256")
    if library:
        rows.append(["library, SHA-256", library])
    parts = [str(versions.get(name) or gpu.get(name) or "-") for name in ("torch", "cuda", "cudnn", "triton")]
    rows.append(["torch, CUDA, cuDNN, Triton", ", ".join(parts)])
    copies = ", ".join(f"`{rival}` {rate / 1e6:.2f}" for rival, rate in ceilings.copies.items())
    rows.append(["copy, TB/s read and written", f"{number(ceilings.bytes_rate and ceilings.bytes_rate / 1e6)} ({copies})"])
    rows.append(["matrix product in bf16, TFLOP/s", number(ceilings.flops_rate and ceilings.flops_rate / 1e6)])
    rows += [["absent here", name] for name in days.fact("absent").get("names", [])]
    files = []
    for name, own in days.files.items():
        groups = ", ".join(dict.fromkeys(row["group"] for row in own))
        facts = "" if any(row["kind"] == "fact" for row in own) else "; it does not say of which GPU"
        files.append([f"`{name}`", dates(own), groups + facts])
    words = [
        "The fastest copy and the product are the ceilings: a **floor** is the least time for a call's bytes at the one or its "
        "flops at the other, whichever is longer. Its bytes are counted: each operand and result once, without tables of a bias.",
        table(["", ""], rows),
        "The files, the earliest first; of what two of them have, the later one's counts:",
        table(["file", "measured", "groups"], files),
    ]
    return words + changes(days)


def smi(gpu: dict) -> dict[str, str]:
    """nvidia-smi's header and line, as it gives them."""
    header, _, line = gpu.get("smi", "").partition("\n")
    return dict(zip(header.split(", "), line.split(", "))) if line else {}


def changes(days: Days, least: float = 0.05) -> list[str]:
    """Of times that two files have: another build of the library, or a GPU in another state."""
    if not days.replaced:
        return []
    rows = []
    for a, b in days.replaced:
        change = b["us"] / a["us"] - 1
        if abs(change) > least:
            rows.append([f"{b['group']}: {b['name']}", b["rival"], number(a["us"]), number(b["us"]), f"{change:+.0%}"])
    words = f"Times that two files have: {len(days.replaced)}; more than {least:.0%} apart: {len(rows)}."
    if not rows:
        return [words]
    return [
        f"{words} If only ours are, the library was another build, and what only the earlier file has of ours is of the earlier.",
        table(["", "", "earlier, us", "later, us", ""], rows),
    ]


# ------------------------------------------------------------------------------------------------------------ correctness


def correctness(days: Days) -> list[str]:
    rows = []
    for group in GROUPS_OF_CHECKS:
        tried = [row for row in days.rows if row["group"] == group and row["kind"] in ("check", "error", "lost")]
        if tried:
            own = [row for row in tried if row["kind"] == "check"]
            lost, errors = (sum(row["kind"] == kind for row in tried) for kind in ("lost", "error"))
            share = max((row["share"] for row in own if "share" in row), default=None)
            right = f"{sum(row['passed'] for row in own)} of {len(tried)}"
            rows.append([f"`{group}`", right, lost, errors, number(share), ended(days, group)])
    held = sorted((row for row in days.of("check") if "share" in row), key=lambda row: -row["share"])
    bad = wrong_lines(days)
    kernels = {name for row in days.of("check", "variants") for name in row.get("kernels", [])}
    blocks = [
        "`hostile` and `real` hold forward and every gradient to float64 on the same rounded inputs. The budget of an error is "
        "twice what eager PyTorch makes in the same precision, plus rounding; a share of 1 would use it up. "
        f"`variants` calls every kernel variant; the profiler saw {len(kernels)} kernels by name.",
        table(["group", "right", "lost", "errors", "largest share of a budget", "ended"], rows),
        f"Wrong, lost or raised, of our own kernels, and groups that did not end well: {len(bad) or 'none'}.",
    ]
    blocks += ["\n".join(f"- {line}" for line in bad)] if bad else []
    if held:
        blocks.append(f"The largest share of a budget is {held[0]['share']:.2f}. The ten largest:")
        blocks.append(
            table(["case", "group", "share"], [[row["name"], row["group"], f"{row['share']:.3f}"] for row in held[:10]])
        )
    return blocks + contract(days)


def ended(days: Days, group: str) -> str:
    return next((row["how"] for row in days.of("group", group)), "no word of its end")


def wrong_lines(days: Days) -> list[str]:
    lines = []
    for row in days.rows:
        name = f"{row['group']}: {row['name']}"
        rival = row.get("rival") or row["name"].partition(" | ")[2]
        if row["kind"] == "check" and not row["passed"]:
            error = f"relative error {row['relative_error']:.1e}" if "relative_error" in row else "no detail"
            lines.append(f"**WRONG** {name}: {one_line(row.get('detail') or error)}")
        elif row["kind"] == "time" and rival in OURS and not is_right(row):
            lines.append(f"**WRONG** {name}: relative error {row['error']:.1e}")
        elif row["kind"] == "lost":
            lines.append(f"**LOST** {name}: {one_line(row['how'])}")
        elif row["kind"] == "error" and rival in ("", *OURS):
            lines.append(f"**ERROR** {name}: {one_line(row['error'])}")
        elif row["kind"] == "group" and not row["completed"]:
            lines.append(f"**ENDED** {row['name']}: {one_line(row['how'])}")
    return lines


def contract(days: Days) -> list[str]:
    """What was tried of the promises, and the sanitizer's last words."""
    rows = []
    for row in [*days.of("check", "contract"), *days.of("check", "sanitizer")]:
        errors = ([row["relative_error"]] if "relative_error" in row else []) + row.get("gradient_errors", [])
        detail = one_line(row.get("detail", "").split("\n")[-1].strip("= "))
        said = f"largest relative error {max(errors):.1e}" if errors else detail
        rows.append([row["name"], "held" if row["passed"] else "**not held**", said])
    if not rows:
        return []
    return ["What the operators promise beside numbers, and compute-sanitizer on hostile cases:", table(["", "", ""], rows)]


# -------------------------------------------------------------------------------------------------------------- comparisons


def compared(comparisons: list[Comparison], ceilings: Ceilings, rate: str, with_us: bool = False) -> list[str]:
    """A table and its notes. rate: TB/s or TFLOP/s."""
    rivals = list(dict.fromkeys(rival for one in comparisons for rival in one.rows if rival != one.base))
    counted, notes, rows = {"TB/s": "bytes", "TFLOP/s": "flops"}[rate], Notes(), []
    for one in comparisons:
        us = one.us(one.base)
        reached = number(one.counted[counted] / us / 1e6 if us else None)
        measured = [one.rows[name] if one.us(name) else None for name in (one.base, "eager") if name in one.rows]
        peaks = " / ".join(number(row and row["peak_bytes"] / 2**20) for row in measured)
        floor = [number(ceilings.floor_us(one.counted)), percent(ceilings.share(one)), reached]
        cells = [base_cell(one, notes), *floor, *(rival_cell(one, rival, notes, with_us) for rival in rivals), peaks]
        rows.append([one.shape, "fwd+bwd" if one.backward else "fwd", *cells])
    memory = "MiB, ours / eager" if any("eager" in one.rows for one in comparisons) else "MiB"
    header = ["", "", f"{comparisons[0].base}, us", "floor, us", "share", rate, *rivals, memory]
    return [table(header, rows), *notes.lines()]


def base_cell(one: Comparison, notes: Notes) -> str:
    row = one.rows.get(one.base)
    lost = " ✗" if one.base in OURS and one.is_lost() else ""
    return no_number(row, notes) or number(row["us"]) + lost + launched(row, notes)


def rival_cell(one: Comparison, rival: str, notes: Notes, with_us: bool) -> str:
    row, base = one.rows.get(rival), one.rows.get(one.base, {})
    nothing = no_number(row, notes)
    if nothing:
        return nothing
    if base.get("kind") == "time" and not is_right(base):
        return "wrong"
    ratio = one.ratio(rival)
    text = "-" if ratio is None else f"{ratio:.2f}x"
    text = f"**{text}**" if ratio and rival == one.best() else text
    text += f", {number(row['us'])}" if with_us else ""
    text += f" {notes.mark('of another file than our time')}" if ratio and row["file"] != base["file"] else ""
    return text + launched(row, notes)


def no_number(row: dict | None, notes: Notes) -> str | None:
    """Where there is none, or none that counts."""
    if row is None or row["kind"] != "time":
        return f"- {notes.mark(no_time(row))}"
    error = row["error"]
    return None if is_right(row) else f"wrong {notes.mark(f'relative error {error:.1e}, above {WRONG:g}')}"


def launched(row: dict, notes: Notes) -> str:
    return "" if row["graph"] else f" {notes.mark('not captured in a graph: its launches are in its time')}"


def verdict(comparisons: list[Comparison], ceilings: Ceilings) -> str:
    """Of our rows: how many lead, and how far from the floor."""
    words = []
    for title, backward in (("Forward", False), ("Forward and backward", True)):
        own = [one for one in comparisons if one.backward == backward]
        raced = [one for one in own if one.best() and one.us(one.base)]
        if not raced:
            continue
        first = f"{title}: ours is the fastest in {sum(not one.is_lost() for one in raced)} of {len(own)} rows"
        text = f"{first}. The best rival takes {spread([one.ratio(one.best()) for one in raced])} times as long"
        eager = [one.ratio("eager") for one in raced if one.ratio("eager")]
        text += f", eager {spread(eager)} times" if eager else ""
        shares = [share for share in map(ceilings.share, own) if share]
        words.append(text + (f"; the floor is {spread(shares, '.0%')} of our time." if shares else "."))
    return " ".join(words)


def spread(values: list[float], form: str = ".2f") -> str:
    low, middle, high = (f"{of(values):{form}}" for of in (min, statistics.median, max))
    return f"{low} to {high} (median {middle})" if len(values) > 1 else low


def attention(days: Days, ceilings: Ceilings, kind: str, rate: str) -> list[str]:
    comparisons = days.comparisons(kind)
    return [verdict(comparisons, ceilings), *compared(comparisons, ceilings, rate)] if comparisons else ["Not measured."]


def modules(days: Days, ceilings: Ceilings) -> list[str]:
    found = by_operator(days, "layers") | by_operator(days, "blocks")
    words = {
        "TemporalAttention": "`TemporalAttention`, a module of a product to q, k and v, attention with a dense bias, and a "
        "product from the heads, beside that of the source text.",
        "norm_act_conv": "`norm_act_conv`: group norm of each frame, SiLU, a convolution, a residual, beside the same in turn.",
        "convolution": "Convolutions to as many channels as they have. None of them is ours: a fused one has to beat them. "
        "Ratios are over `conv2d` on views of the same memory.",
        "channel_stats": "`channel_stats`: the mean and variance of each channel of each frame.",
    }
    blocks = []
    for operator, own in found.items():
        rate = "TFLOP/s" if own[0].counted["flops"] else "TB/s"
        blocks += [words.get(operator, f"`{operator}`."), *compared(own, ceilings, rate, with_us=True)]
    return blocks or ["Not measured."]


def compiled(days: Days, ceilings: Ceilings) -> list[str]:
    blocks = []
    for own in by_operator(days, "compiled").values():
        own = [one for one in own if len(one.rows) > 1]
        if own:
            label = own[0].operator
            words = f"{label.title()} attention:" if label in ("temporal", "spatial") else f"`{label}`:"
            blocks += [words, *compared(own, ceilings, "TFLOP/s" if label != "temporal" else "TB/s", with_us=True)]
    return blocks or ["Not measured."]


def by_operator(days: Days, group: str) -> dict[str, list[Comparison]]:
    found: dict[str, list[Comparison]] = {}
    for one in days.comparisons(group):
        found.setdefault(one.operator, []).append(one)
    return found


# ---------------------------------------------------------------------------------------------------------------- host time


def host_times(days: Days) -> list[str]:
    """A row an operator and direction, over its shapes."""
    found: dict[tuple, list[Comparison]] = {}
    for one in [one for group in ("temporal", "spatial", "layers") for one in days.comparisons(group)]:
        if one.base in OURS:
            found.setdefault((one.operator, one.backward), []).append(one)
    named = dict.fromkeys(rival for own in found.values() for one in own for rival in one.rows)
    rivals, rows = [rival for rival in named if rival not in OURS], []
    for (operator, backward), own in found.items():
        ours = [one.rows[one.base] for one in own if one.rows.get(one.base, {}).get("kind") == "time"]
        longer = sum(row["host_us"] > row["us"] for row in ours)
        cells = [spread([row["host_us"] for row in ours], ",.0f") if ours else "-", f"{longer} of {len(ours)}"]
        for rival in rivals:
            times = [one.rows[rival]["host_us"] for one in own if one.rows.get(rival, {}).get("kind") == "time"]
            cells.append(number(statistics.median(times)) if times else "-")
        rows.append([operator, "fwd+bwd" if backward else "fwd", *cells])
    header = ["", "", "ours, us", "longer than on the GPU", *(f"{rival}, us" for rival in rivals)]
    return [table(header, rows)] if rows else ["Not measured."]
