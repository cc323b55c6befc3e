"""Figures: drawn where there are numbers, in files that can be read, whatever the numbers are."""

from io import BytesIO
from xml.etree import ElementTree

import pytest
from PIL import Image

from predrec.eval import figures
from predrec.eval.figures import FIGURES, all_figures
from predrec.eval.results import Results

from .made import add_geometry, add_probes, full_results, plant, plant_seeds, results_of

NAMES = [name for name, *_ in FIGURES]
OF_GEOMETRY = [name for name in NAMES if name != "probes"]


@pytest.fixture(scope="module")
def pictures():
    """Every figure of full results, by name."""
    return {picture.name: picture for picture in all_figures(full_results(2))}


def drawn(results: Results) -> list[str]:
    """Names the figures that there are numbers for, without writing files."""
    return [name for name, _, draw in FIGURES if draw(results) is not None]


def small_results(num_checkpoints: int = 1) -> Results:
    """Returns results that have every figure, of one task and two poolings."""
    results = results_of(hybrid=num_checkpoints, mlm=num_checkpoints)
    add_probes(results, num_seeds=2)
    add_geometry(results, ["sst2"], ["mean", "max"])
    return results


def saved(figure) -> bytes:
    """Returns the drawing: some mistakes show only when a figure is drawn."""
    buffer = BytesIO()
    figure.savefig(buffer, format="svg")
    return buffer.getvalue()


def test_full_results_have_every_figure(pictures):
    assert list(pictures) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_figure_is_a_png_of_some_size(pictures, name):
    with Image.open(BytesIO(pictures[name].png)) as image:
        image.load()
        assert image.format == "PNG" and min(image.size) > 200


@pytest.mark.parametrize("name", NAMES)
def test_figure_is_an_svg(pictures, name):
    assert ElementTree.fromstring(pictures[name].svg).tag == "{http://www.w3.org/2000/svg}svg"


@pytest.mark.parametrize("name", NAMES)
def test_figure_is_not_empty(pictures, name):
    with Image.open(BytesIO(pictures[name].png)) as image:
        assert len(image.convert("RGB").getcolors(1 << 24)) > 10


@pytest.mark.parametrize("name", NAMES)
def test_figure_has_a_text_for_who_cannot_see_it(pictures, name):
    assert pictures[name].alt


@pytest.mark.parametrize("name", NAMES)
def test_figure_does_not_say_when_it_was_drawn(pictures, name):
    assert b"<dc:date>" not in pictures[name].svg


@pytest.mark.parametrize(
    ("part", "expected"),
    [("probe", ["probes"]), ("finetune", ["probes"]), ("geometry", OF_GEOMETRY), ("sts", [])],
)
def test_figures_without_numbers_are_left_out(part, expected):
    assert drawn(full_results(parts=[part])) == expected


def test_figures_of_nothing_are_none():
    assert drawn(Results()) == []


def test_figures_without_spectra_leave_them_out():
    results = full_results(parts=["geometry"])
    results.spectra = []
    assert drawn(results) == [name for name in OF_GEOMETRY if name != "spectra"]


def test_figures_of_one_pooling_do_not_compare_poolings():
    results = results_of(hybrid=1, mlm=1)
    add_geometry(results, poolings=["mean"])
    assert drawn(results) == [name for name in OF_GEOMETRY if name != "pooling"]


def test_figures_of_one_model_do_not_compare_models():
    assert drawn(full_results(models=["hybrid"])) == [name for name in NAMES if name != "measures"]


def test_figures_without_classes_have_no_alignment():
    results = full_results(parts=["geometry"])
    results.records = [record for record in results.records if record.metric != "alignment"]
    assert drawn(results) == [name for name in OF_GEOMETRY if name != "alignment_uniformity"]


@pytest.mark.parametrize("pooling", ["max", "weighted", "attention", "cls"])
def test_figures_of_another_pooling_alone_are_drawn(pooling):
    results = results_of(hybrid=1, mlm=1)
    add_geometry(results, ["sst2"], [pooling])
    assert all_figures(results)


def constant_results(num_checkpoints: int) -> Results:
    """Returns results in which every number is the same."""
    results = small_results(num_checkpoints)
    fields = [vars(record) | {"value": 0.5} for record in results.records]
    results.records = [type(results.records[0])(**one) for one in fields]
    return results


@pytest.mark.parametrize("num_checkpoints", [1, 3])
def test_figures_of_equal_numbers_are_drawn(num_checkpoints):
    assert len(all_figures(constant_results(num_checkpoints))) == len(NAMES)


def test_figures_of_single_numbers_are_drawn():
    results = results_of(hybrid=1)
    add_probes(results, num_seeds=1)
    plant(results, "hybrid", [0.3], kind="geometry", task="sst2", metric="uniformity", pooling="mean", variant="raw")
    assert [picture.name for picture in all_figures(results)] == ["probes", "effective_rank"]


def test_spectra_of_equal_vectors_are_left_out():
    results = small_results()
    for spectrum in results.spectra:
        spectrum["values"] = [0.0] * 16
    assert figures.spectra(results) is None


def test_spectra_of_different_lengths_are_drawn():
    results = small_results(2)
    results.spectra[0]["values"] = results.spectra[0]["values"][:5]
    assert saved(figures.spectra(results))


def legend_of(figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


@pytest.mark.parametrize("name", ["spectra", "alignment_against_uniformity", "effective_rank", "pooling_ablation"])
def test_legend_names_every_model(name):
    assert legend_of(getattr(figures, name)(full_results())) == ["hybrid", "mlm"]


def test_legend_of_probes_names_baselines():
    found = legend_of(figures.probes(full_results()))
    assert sorted(found) == sorted(["majority class", "TF-IDF bag of words"])


def test_legend_of_spectra_names_a_model_that_lacks_the_first_task():
    results = full_results(parts=["geometry"])
    results.spectra = [one for one in results.spectra if (one["model"], one["task"]) != ("mlm", "sst2")]
    assert legend_of(figures.spectra(results)) == ["hybrid", "mlm"]


def test_spectra_are_drawn_without_the_first_task_and_pooling():
    results = full_results(parts=["geometry"])
    results.spectra = [one for one in results.spectra if (one["task"], one["pooling"]) != ("sst2", "mean")]
    assert saved(figures.spectra(results))


def test_spectra_are_shares_of_variance():
    axis = figures.spectra(small_results()).axes[0]
    values = (0.7**2) ** axis.lines[0].get_xdata()
    expected = values / sum((0.7**2) ** rank for rank in range(1, 17))
    assert axis.lines[0].get_ydata() == pytest.approx(expected)


def test_bars_have_the_height_of_the_mean():
    results = results_of(hybrid=2)
    fields = {"task": "sst2", "metric": "effective_rank", "pooling": "mean", "variant": "centred"}
    plant(results, "hybrid", [3.0, 5.0], kind="geometry", **fields)
    assert figures.effective_rank(results).axes[0].patches[0].get_height() == pytest.approx(4.0)


def test_bars_are_of_each_task_pooling_and_model():
    results = results_of(hybrid=2, mlm=1)
    fields = {"kind": "geometry", "metric": "effective_rank", "variant": "centred"}
    planted = {("sst2", "mean"): 3.0, ("stsb", "mean"): 5.0, ("sst2", "max"): 7.0, ("stsb", "max"): 11.0}
    for (task, pooling), value in planted.items():
        plant(results, "hybrid", [value - 1, value + 1], task=task, pooling=pooling, **fields)
        plant(results, "mlm", [value + 20], task=task, pooling=pooling, **fields)
    for axis, values in zip(figures.effective_rank(results).axes, ([3.0, 5.0], [7.0, 11.0]), strict=True):
        heights = [bar.get_height() for bar in axis.patches]
        assert heights == pytest.approx([*values, *(value + 20 for value in values)])


def test_points_are_means_of_uniformity_and_alignment():
    results = results_of(hybrid=2, mlm=1)
    fields = {"kind": "geometry", "pooling": "mean", "variant": "raw"}
    for task, shift in (("sst2", 0.0), ("stsb", -1.0)):
        for metric, sign in (("uniformity", 1), ("alignment", -1)):
            plant(results, "hybrid", [sign * (shift - 0.5), sign * (shift - 0.7)], task=task, metric=metric, **fields)
            plant(results, "mlm", [sign * (shift - 0.1)], task=task, metric=metric, **fields)
    (axis,) = figures.alignment_against_uniformity(results).axes
    points = [points.get_offsets().tolist() for points in axis.collections]
    assert points[0] == [pytest.approx(point) for point in ([-0.6, 0.6], [-1.6, 1.6])]
    assert points[1] == [pytest.approx(point) for point in ([-0.1, 0.1], [-1.1, 1.1])]
    assert [text.get_text() for text in axis.texts] == ["sst2", "stsb"] * 2


def test_bars_by_pooling_are_means_over_tasks():
    results = results_of(hybrid=1)
    fields = {"kind": "geometry", "metric": "semantic_probe"}
    for task, value in (("sst2", 0.4), ("stsb", 0.6)):
        plant(results, "hybrid", [value], task=task, pooling="mean", **fields)
        plant(results, "hybrid", [value + 0.1], task=task, pooling="max", **fields)
    (axis,) = figures.pooling_ablation(results).axes
    assert [bar.get_height() for bar in axis.patches] == pytest.approx([0.5, 0.6])


def test_probes_show_baselines_where_they_are():
    results = full_results(parts=["probe"])
    axis = figures.probes(results).axes[0]
    found = {line.get_label(): line.get_xdata()[0] for line in axis.lines if not line.get_label().startswith("_")}
    assert found == {"majority class": 0.5, "TF-IDF bag of words": 0.55}


def dots_of(axis) -> tuple[list[float], float]:
    """Returns the dots of the first row, and the mark of their mean."""
    return axis.collections[0].get_offsets()[:, 0].tolist(), float(axis.lines[0].get_xdata()[0])


def test_probes_show_every_checkpoint_and_the_mean():
    results = results_of(hybrid=2)
    for number, value in enumerate((0.4, 0.8)):
        plant_seeds(results, "hybrid", [value - 0.1, value + 0.1], replicate=number, task="sst2", metric="accuracy")
    dots, mean = dots_of(figures.probes(results).axes[0])
    assert (dots, mean) == (pytest.approx([0.4, 0.8]), pytest.approx(0.6))


def test_probes_have_a_row_for_every_way_to_score():
    results = results_of(hybrid=1, mlm=1)
    for model, value in (("hybrid", 0.4), ("mlm", 0.6)):
        for variant in (None, "whitened"):
            shift = 0.0 if variant is None else 0.1
            plant_seeds(results, model, [value + shift], task="sst2", metric="accuracy", variant=variant)
    axis = figures.probes(results).axes[0]
    rows = [label.get_text() for label in axis.get_yticklabels()]
    found = {row: dots.get_offsets()[0][0] for row, dots in zip(rows, axis.collections, strict=True)}
    assert found == pytest.approx(
        {
            "hybrid, mean linear": 0.4,
            "hybrid, mean linear whitened": 0.5,
            "mlm, mean linear": 0.6,
            "mlm, mean linear whitened": 0.7,
        }
    )


def test_probes_leave_out_the_best_epoch_on_the_evaluation_split():
    results = results_of(hybrid=1)
    plant_seeds(results, "hybrid", [0.4], task="sst2", metric="accuracy")
    plant_seeds(results, "hybrid", [0.8], task="sst2", metric="accuracy", variant="best_on_eval")
    assert dots_of(figures.probes(results).axes[0]) == ([0.4], 0.4)


def test_measures_are_means_over_tasks_of_every_checkpoint():
    results = results_of(hybrid=2, mlm=1)
    fields = {"kind": "geometry", "metric": "uniformity", "pooling": "mean", "variant": "raw"}
    for task, shift in (("sst2", 0.0), ("stsb", -1.0)):
        plant(results, "hybrid", [-0.5 + shift, -1.5 + shift], task=task, **fields)
        plant(results, "mlm", [-0.1 + shift], task=task, **fields)
    (axis,) = figures.measures(results).axes
    assert dots_of(axis) == (pytest.approx([-1.0, -2.0]), pytest.approx(-1.5))
    assert [label.get_text() for label in axis.get_yticklabels()] == ["hybrid", "mlm"]


def test_more_models_than_colours_have_figures_of_rows_alone():
    results = results_of(**{f"model {number}": 1 for number in range(8)})
    add_geometry(results, ["sst2"], ["mean", "max"])
    assert [picture.name for picture in all_figures(results)] == ["measures"]
