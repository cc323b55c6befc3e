"""What the figures of an experiment show: curves over tokens, their means, effects with their intervals."""

import pytest

from predrec.eval.statistics import compare
from predrec.experiments import figures
from predrec.experiments.effects import Effect
from predrec.experiments.figures import curve_over_tokens, effects_figure, training_figure

from .made import content


@pytest.fixture(autouse=True)
def drawn(monkeypatch):
    """Figures as they are drawn, not as files."""
    monkeypatch.setattr(figures, "picture_of", lambda figure, name, alt: figure)


def run(seed: int, losses: list[float], **changes) -> dict:
    """A finished run of 100 updates and 4 million tokens, with an evaluation every 25 updates."""
    points = [[25 * (number + 1), loss] for number, loss in enumerate(losses)]
    return content("hybrid", seed, tokens=4_000_000, curves={"eval_mlm_loss": points}, **changes)


def lines_of(axis, width: float) -> list[tuple[list[float], list[float]]]:
    """The lines of a width: horizontal and vertical values."""
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in axis.lines if line.get_linewidth() == width]


def test_curve_is_over_millions_of_tokens():
    tokens, values = curve_over_tokens(run(1, [7.0, 6.0, 5.5]), "eval_mlm_loss")
    assert tokens == pytest.approx([1.0, 2.0, 3.0])
    assert values.tolist() == [7.0, 6.0, 5.5]


def test_training_shows_every_seed_and_their_mean():
    runs = {"hybrid": [run(1, [7.0, 6.0, 5.0]), run(2, [8.0, 7.0, 4.0])]}
    (axis,) = training_figure(runs).axes
    assert axis.get_title() == "held-out masked-LM loss (nats)"
    tokens = pytest.approx([1.0, 2.0, 3.0])
    assert lines_of(axis, 0.5) == [(tokens, [7.0, 6.0, 5.0]), (tokens, [8.0, 7.0, 4.0])]
    assert lines_of(axis, 1.6) == [(tokens, [7.5, 6.5, 4.5])]


def test_training_has_one_line_for_one_seed_and_the_common_part_of_several():
    runs = {"hybrid": [run(1, [7.0, 6.0, 5.0])], "mlm": [run(1, [8.0, 7.0]), run(2, [6.0, 5.0, 4.0])]}
    (axis,) = training_figure(runs).axes
    assert [values for _, values in lines_of(axis, 1.6)] == [[7.0, 6.0, 5.0], [7.0, 6.0]]
    assert len(lines_of(axis, 0.5)) == 2


def test_training_leaves_out_runs_of_a_single_point():
    runs = {"hybrid": [run(1, [7.0, 6.0])], "mlm": [run(1, [8.0])]}
    figure = training_figure(runs)
    assert len(figure.axes[0].lines) == 1
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["hybrid"]
    assert training_figure({"mlm": [run(1, [8.0])]}) is None


@pytest.mark.parametrize(("other", "shown"), [("cosine", 1), ("mse", 0)])
def test_training_compares_jepa_losses_of_one_kind_only(other, shown):
    def with_loss(kind: str) -> dict:
        curves = {"eval_jepa_loss": [[50, 0.5], [100, 0.4]], "eval_uniformity": [[50, -1.0], [100, -2.0]]}
        return content("hybrid", 1, arguments={"jepa_loss": kind}, curves=curves)

    figure = training_figure({"one": [with_loss("cosine")], "other": [with_loss(other)]})
    titles = [axis.get_title() for axis in figure.axes if axis.axison]
    assert titles == ["held-out JEPA loss"] * shown + ["uniformity (lower: more spread)"]


def test_effects_are_drawn_with_their_intervals():
    comparison = compare([0.5, 1.0, 1.5])
    found = [
        Effect("objective", "loss", comparison, 0.1, ()),
        Effect("objective x positions", "loss", compare([-1.0, 0.0, 1.0]), 1.0, ()),
        Effect("objective", "rank", compare([2.0, 3.0, 4.0]), 0.1, ()),
    ]
    loss, rank = effects_figure("effects", "Effects", found).axes
    assert [loss.get_title(), rank.get_title()] == ["loss", "rank"]
    assert [label.get_text() for label in loss.get_yticklabels()] == ["objective", "objective x positions"]
    interval, point = loss.lines[:2]
    assert list(interval.get_xdata()) == [comparison.low, comparison.high] and list(interval.get_ydata()) == [0, 0]
    assert list(point.get_xdata()) == [1.0]
    assert list(rank.lines[1].get_xdata()) == [3.0]
