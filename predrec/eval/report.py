"""From results to a report: its sections in their order, with claims, figures and where everything comes from."""

from collections.abc import Sequence

from ..errors import UserError
from .claims import evaluate_claims, evaluate_family
from .document import Block, Heading, Paragraph, Table
from .figures import all_figures
from .language_report import about_language_models, language_blocks
from .report_comparisons import claim_blocks, comparison_blocks
from .report_geometry import geometry_blocks
from .report_scores import SCORES, score_blocks, similarity_blocks
from .results import Results


def build_report(
    results: Results,
    baseline: str | None = None,
    with_published: bool = False,
    pairs: Sequence[tuple[str, str]] | None = None,
) -> list[Block]:
    """Puts the report together.

    Args:
        results (`Results`): Merged, of any commands.
        baseline (`str`, *optional*): Model that the others are compared with; the last one when absent.
        with_published (`bool`, defaults to `False`): Put the paper's numbers beside ours.
        pairs (`list[tuple[str, str]]`, *optional*): Model and baseline of every comparison, in place of `baseline`;
            their claims are one family of tests.

    Raises:
        UserError: If the baseline is not among the models.
    """
    names = results.model_names
    if baseline is not None and baseline not in names:
        raise UserError(f"`baseline` {baseline!r} is not among the models: {', '.join(names)}.")
    baseline = baseline or (names[-1] if len(names) > 1 else None)
    if pairs is None:
        pairs = [(name, baseline) for name in names if name != baseline] if baseline else []
        claims = [evaluate_claims(results, *pair) for pair in pairs]
    else:
        baseline, claims = None, evaluate_family(results, pairs)
    figures = {picture.name: picture for picture in all_figures(results)}
    blocks: list[Block] = [Heading(f"Evaluation of {_listed(names)}", 1), *_about(results, baseline)]
    for (model, other), found in zip(pairs, claims, strict=True):
        blocks += claim_blocks(found, model, other, len(pairs) if baseline is None else 1)
    for kind, title in SCORES:
        blocks += score_blocks(results, kind, title, with_published)
        if results.select(kind=kind):
            for model, other in pairs:
                blocks += comparison_blocks(results, kind, model, other)
            blocks += [figures.pop("probes")] if "probes" in figures else []
    blocks += geometry_blocks(results, with_published)
    blocks += list(figures.values())
    blocks += similarity_blocks(results)
    blocks += language_blocks(results, pairs)
    return blocks + _provenance(results)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else "".join(names)


def _about(results: Results, baseline: str | None) -> list[Block]:
    rows = [
        [
            model["name"], str(model["replicate"]), model["folder"], model["model_type"],
            f"{model['num_hidden_layers']} x {model['hidden_size']}", f"{model['num_parameters'] / 1e6:.1f} M",
            model["dtype"], f"`{model['weights']}`",
        ]
        for model in results.models if "folder" in model
    ]  # fmt: skip
    header = ["model", "checkpoint", "folder", "type", "layers x width", "parameters", "computed in", "weights"]
    counts = {name: sum(model["name"] == name for model in results.models) for name in results.model_names}
    few = [name for name, count in counts.items() if count < 6]
    text = f"The others are compared with **{baseline}**. " if baseline else ""
    if few and baseline:
        text += (
            f"{_listed([f'{name}: {counts[name]}' for name in counts])} checkpoints. A claim about a way of training "
            "needs several pre-training seeds: with fewer than 6, a sign-flip test cannot reach p < 0.05 "
            '(its smallest p is 2 / 2^n), and the verdict is "too few seeds" whatever the numbers.'
        )
    blocks: list[Block] = [Table(header, rows)] if rows else []
    blocks += about_language_models(results)
    return [*blocks, Paragraph(text)] if text else blocks


def _provenance(results: Results) -> list[Block]:
    versions = ", ".join(f"{name} {number}" for name, number in results.versions.items())
    commands = [Paragraph(f"`{command}`") for command in results.commands]
    return [Heading("How it was measured"), *commands, Paragraph(versions)]
