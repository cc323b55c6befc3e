"""The section of a report about the geometry of vectors."""

from collections.abc import Sequence

from .claims import in_paper_convention
from .document import Block, Heading, Paragraph, Table
from .published import PUBLISHED, published
from .report_cells import bold, spread
from .results import Results

GEOMETRY = (
    ("uniformity", -1),
    ("alignment", 0),
    ("spectral_entropy", 1),
    ("effective_rank", 1),
    ("stable_rank", 1),
    ("rank_90", 1),
    ("intra_inter_ratio", -1),
    ("semantic_probe", 1),
    ("token_probe", 0),
    ("probe_gap", 1),
)
"""Measures, and which way is better; 0 where neither is."""

CENTRED = (("uniformity", -1), ("mean_cosine", 0), ("alignment", 0), ("intra_inter_ratio", -1))
UNCENTRED = (("mean_cosine", 0), ("effective_rank", 1), ("spectral_entropy", 1), ("stable_rank", 1))


def geometry_blocks(results: Results, with_published: bool) -> list[Block]:
    """Returns the section about geometry; nothing where it was not measured."""
    tasks = list(dict.fromkeys(record.task for record in results.select(kind="geometry")))
    if not tasks:
        return []
    poolings = [p for p in dict.fromkeys(record.pooling for record in results.select(kind="geometry")) if p]
    count = max((record.num_eval or 0) for record in results.select(kind="geometry"))
    blocks: list[Block] = [
        Heading("Geometry of the vectors"),
        Paragraph(
            f"Up to {count:,} evaluation examples of each task; pairs are one text. As in the paper, spectral "
            "measures are of centred vectors, the others of raw ones. Lower uniformity means more spread, lower "
            "alignment tighter classes; best in bold where one direction is better. ± is the standard deviation over "
            "checkpoints or, with a single one, over the draws of untrained attention."
        ),
    ]
    for pooling in poolings:
        rows = []
        for task in tasks:
            rows += measure_rows(results, task, pooling, GEOMETRY, with_published)
        header = ["task", "model", *(name.replace("_", " ") for name, _ in GEOMETRY)]
        blocks += [Heading(f"{pooling} pooling", 3), Table(header, rows)]
    if "weighted" in poolings and "mean" in poolings:
        blocks.append(
            Paragraph("Weighted pooling starts as mean pooling: equal rows are to be expected, and not a finding.")
        )
    first = poolings[0]
    for variant, measures in (("centred", CENTRED), ("raw", UNCENTRED)):
        rows = [row for task in tasks for row in measure_rows(results, task, first, measures, False, variant)]
        header = ["task", "model", *(name.replace("_", " ") for name, _ in measures)]
        blocks += [Heading(f"{first} pooling, {variant} vectors", 3), Table(header, rows)]
    return blocks


def measure_rows(
    results: Results,
    task: str,
    pooling: str,
    measures: Sequence[tuple[str, int]],
    with_published: bool,
    variant: str | None = None,
) -> list[list[str]]:
    """Returns a row per model, with the best of each measure marked, and the paper's rows below."""
    names = results.model_names
    wanted = {"kind": "geometry", "task": task, "pooling": pooling}
    chosen = in_paper_convention if variant is None else lambda record: record.variant == variant
    columns = []
    for metric, sign in measures:
        found = [results.sample(chosen, model=name, metric=metric, **wanted) for name in names]
        cells = [spread(values, 1 if metric.endswith(("rank", "90")) else 3) for values in found]
        columns.append(bold(cells, [values.mean() if len(values) else None for values in found], sign))
    rows = [[task, name, *(column[index] for column in columns)] for index, name in enumerate(names)]
    numbers = published()["geometry"].get(task, {}).get(pooling) if with_published else None
    if numbers:
        for index, name in enumerate(PUBLISHED):
            cells = [f"{numbers[metric][index]:g}" if metric in numbers else "-" for metric, _ in measures]
            rows.append([task, f"paper: {name}", *cells])
    return rows
