"""The section of a report about training: curves, and losses beside those of trivial predictors."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..eval.document import Block, Heading, Paragraph, Table
from ..eval.report_cells import spread
from .figures import training_figure

LOSSES = (
    ("masked-LM loss", "eval_mlm_loss"),
    ("JEPA loss", "eval_jepa_loss"),
    ("mean target", "eval_trivial_loss_mean"),
    ("another position", "eval_trivial_loss_position"),
    ("another text", "eval_trivial_loss_text"),
    ("margin", "eval_jepa_margin"),
    ("lambda", "eval_loss_lambda"),
    ("uniformity, held-out rows", "eval_uniformity"),
    ("effective rank, held-out rows", "eval_effective_rank"),
)
"""What training ended with; the three in the middle are the JEPA losses of trivial predictors."""


def training_blocks(by_arm: Mapping[str, Sequence[dict[str, Any]]]) -> list[Block]:
    """Shows curves, and losses at the end of training beside those of trivial predictors."""
    shown = [(title, name) for title, name in LOSSES if any(name in c["last"] for cs in by_arm.values() for c in cs)]
    rows = [
        [arm, *(spread(np.array([c["last"][name] for c in contents if name in c["last"]])) for _, name in shown)]
        for arm, contents in by_arm.items()
    ]
    figure = training_figure(by_arm)
    return [
        Heading("Training"),
        Paragraph(
            "On held-out text, after the last update: mean ± standard deviation over seeds. A JEPA loss says "
            "something only beside those of three trivial predictors (the mean target, the target at "
            "another position of the text, the target of another text); the margin is by how much it beats the best "
            "of them. JEPA losses are over all held-out rows, the trivial ones and the margin over the monitor's "
            "rows. Between arms with other targets, JEPA losses do not compare. Uniformity and rank are of the "
            "monitor's few rows, whose number bounds the rank: they do not compare with those of the tasks' vectors "
            "below."
        ),
        Table(["arm", *(title for title, _ in shown)], rows),
        *([figure] if figure is not None else []),
    ]
