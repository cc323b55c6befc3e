"""Effects of factors, planted and found again."""

from types import SimpleNamespace

import numpy as np
import pytest

from predrec.eval.document import Heading
from predrec.eval.results import DEVELOPMENT, Results, add_record
from predrec.experiments.definition import Arm
from predrec.experiments.effects import (
    claimed,
    contrast,
    differences,
    effects,
    factors_of,
    held_out,
    measured,
    simple_effects,
)
from predrec.experiments.report_effects import effect_blocks

LEVELS = {"positions": ("loud", "quiet"), "objective": ("mlm", "hybrid")}
ARMS = {
    f"{objective}-{positions}": Arm(
        f"{objective}-{positions}", "", {}, levels={"positions": positions, "objective": objective}
    )
    for positions in LEVELS["positions"]
    for objective in LEVELS["objective"]
}


def planted(positions: float, objective: float, interaction: float, seeds: int = 3) -> dict:
    """Values of every arm and seed: each factor adds its effect, seeds differ, and two levels together add more."""
    values: dict = {}
    for name, arm in ARMS.items():
        quiet, hybrid = arm.levels["positions"] == "quiet", arm.levels["objective"] == "hybrid"
        level = positions * quiet + objective * hybrid + interaction * (quiet and hybrid)
        values[name] = {seed: level + 10 * seed for seed in range(1, seeds + 1)}
    return values


def test_levels_are_in_the_order_of_the_arms():
    assert factors_of(ARMS) == {"positions": ["loud", "quiet"], "objective": ["mlm", "hybrid"]}


def test_effect_of_a_factor_is_found_in_every_seed():
    assert contrast(planted(2.0, 0.5, 0.0), ARMS, ["positions"]) == pytest.approx({1: 2.0, 2: 2.0, 3: 2.0})


def test_effect_is_averaged_over_the_other_factor():
    assert contrast(planted(2.0, 0.5, 1.0), ARMS, ["objective"]) == pytest.approx({1: 1.0, 2: 1.0, 3: 1.0})


def test_interaction_is_half_the_difference_of_differences():
    found = contrast(planted(2.0, 0.5, 1.0), ARMS, ["positions", "objective"])
    assert found == pytest.approx({1: 0.5, 2: 0.5, 3: 0.5})


def test_block_that_lacks_an_arm_does_not_count():
    values = planted(2.0, 0.5, 1.0)
    del values["hybrid-quiet"]
    assert contrast(values, ARMS, ["positions"]) == pytest.approx({1: 2.0, 2: 2.0, 3: 2.0})
    assert contrast(values, ARMS, ["positions", "objective"]) == {}


def test_seed_that_lacks_an_arm_does_not_count():
    values = planted(2.0, 0.5, 0.0)
    del values["mlm-loud"][2]
    assert contrast(values, ARMS, ["positions"]).keys() == {1, 3}


def test_arm_outside_the_design_does_not_count():
    arms = ARMS | {"other": Arm("other", "", {})}
    values = planted(2.0, 0.5, 0.0) | {"other": {1: 99.0}}
    assert contrast(values, arms, ["positions"]) == contrast(planted(2.0, 0.5, 0.0), ARMS, ["positions"])


def test_all_effects_are_one_family():
    values = planted(2.0, 0.0, 0.0)
    generator = np.random.default_rng(0)
    for found in values.values():
        for seed in found:
            found[seed] += generator.normal(0, 0.1)
    found = {effect.name: effect for effect in effects(ARMS, values, "loss")}
    assert list(found) == ["positions: loud to quiet", "objective: mlm to hybrid", "positions x objective"]
    smallest = min(effect.comparison.t_p for effect in found.values())
    assert found["positions: loud to quiet"].p == pytest.approx(3 * smallest)


def noisy(values: dict) -> dict:
    generator = np.random.default_rng(0)
    return {
        name: {seed: value + generator.normal(0, 0.01) for seed, value in found.items()}
        for name, found in values.items()
    }


def test_factor_that_depends_on_another_is_shown_at_each_of_its_levels():
    found = dict(simple_effects(ARMS, noisy(planted(2.0, 0.5, 1.0)), "loss"))
    assert {name: comparison.effect for name, comparison in found.items()} == pytest.approx(
        {
            "positions: loud to quiet, where objective is mlm": 2.0,
            "positions: loud to quiet, where objective is hybrid": 3.0,
            "objective: mlm to hybrid, where positions is loud": 0.5,
            "objective: mlm to hybrid, where positions is quiet": 1.5,
        },
        abs=0.03,
    )


def test_effects_at_a_level_have_the_direction_of_the_design():
    """Arms at one level of the other factor may be named in another order than those of the whole design."""
    arms = {name: ARMS[name] for name in ("mlm-loud", "mlm-quiet", "hybrid-quiet", "hybrid-loud")}
    found = dict(simple_effects(arms, noisy(planted(2.0, 0.5, 1.0)) | {"other": {1: 99.0}}, "loss"))
    assert found["positions: loud to quiet, where objective is hybrid"].effect == pytest.approx(3.0, abs=0.03)


def test_report_shows_them_below_the_effects_of_the_design():
    values = noisy(planted(2.0, 0.5, 1.0))
    by_arm = {
        arm: [{"seed": seed, "last": {"eval_mlm_loss": value}} for seed, value in found.items()]
        for arm, found in values.items()
    }
    experiment = SimpleNamespace(arms=ARMS, contrasts=[], probe={})
    blocks = effect_blocks(experiment, by_arm, Results())
    place = blocks.index(Heading("Where one factor depends on another", level=3))
    assert place > blocks.index(Heading("Effects of the factors"))
    rows = [row[:3] for row in blocks[place + 2].rows]
    assert ["masked-LM loss", "objective: mlm to hybrid, where positions is quiet"] in [row[:2] for row in rows]
    assert len(rows) == 4


def test_factors_that_do_not_depend_on_one_another_are_not_taken_apart():
    values = planted(2.0, 0.5, 0.0)
    values["mlm-loud"] |= {1: values["mlm-loud"][1] + 0.1}  # A seed that differs, not the design.
    assert simple_effects(ARMS, values, "loss") == []
    assert simple_effects(ARMS, planted(2.0, 0.5, 1.0, seeds=1), "loss") == []


def test_arm_without_the_measure_does_not_count():
    """As masked tokens alone have no margin: the effects that are left are those of the other arms."""
    values = planted(2.0, 0.5, 0.0) | {"mlm-loud": {}, "mlm-quiet": {}}
    assert contrast(values, ARMS, ["positions"]) == pytest.approx({1: 2.0, 2: 2.0, 3: 2.0})
    assert [effect.name for effect in effects(ARMS, values, "margin")] == ["positions: loud to quiet"]


def test_values_are_those_of_the_held_out_text():
    runs = {"mlm": [{"seed": 2, "last": {"eval_mlm_loss": 6.0}}, {"seed": 3, "last": {}}]}
    assert held_out(runs, "eval_mlm_loss") == {"mlm": {2: 6.0}}


def test_effects_say_whose_runs_they_are_made_of():
    values = planted(2.0, 0.5, 1.0)
    del values["hybrid-quiet"]
    (effect,) = [one for one in effects(ARMS, values, "loss") if one.name.startswith("positions: ")]
    assert set(effect.arms) == {"mlm-loud", "mlm-quiet"}


@pytest.mark.parametrize(("seeds", "words"), [(5, "too few seeds"), (6, "changes")])
def test_effects_of_few_seeds_have_no_verdict(seeds, words):
    values = planted(2.0, 0.0, 0.0, seeds)
    for found in values.values():
        found[1] += 0.01 * found[1]  # So that differences vary.
    assert effects(ARMS, values, "loss")[0].verdict == words


def test_factor_that_changes_nothing_is_no_finding():
    """The sums of an interaction leave rounding behind: it is not one seed's effect after another's."""
    generator = np.random.default_rng(0)
    same = {seed: generator.normal() for seed in range(1, 9)}
    values = {name: dict(same) for name in ARMS}
    assert all(effect.p == 1 for effect in effects(ARMS, values, "loss"))


def test_claimed_measures_are_those_of_the_claims():
    results = Results()
    for arm, values in {"mlm": [0.2, 0.4], "hybrid": [0.5, 0.7]}.items():
        for task in ("sst2", "stsb"):
            shared = {"kind": "geometry", "task": task, "pooling": "mean", "metric": "uniformity", "variant": "raw"}
            for seed, value in enumerate(values, 1):
                add_record(results, model=arm, replicate=seed, value=value + (task == "stsb"), **shared)
    found = claimed(results, {"mlm": [], "hybrid": []}, 1)
    assert found == {"mlm": pytest.approx({1: 0.7, 2: 0.9}), "hybrid": pytest.approx({1: 1.0, 2: 1.2})}


PAIRS = [("hybrid-loud", "mlm-loud"), ("hybrid-quiet", "mlm-quiet")]


def test_difference_is_the_first_arm_minus_the_second_in_every_seed():
    values = {"hybrid-loud": {1: 5.0, 2: 7.0, 4: 0.0}, "mlm-loud": {2: 4.0, 1: 1.0, 3: 0.0}}
    (found,) = differences(PAIRS, values, "loss")
    assert (found.name, found.measure, found.arms) == ("hybrid-loud - mlm-loud", "loss", PAIRS[0])
    assert (found.comparison.effect, found.comparison.num_seeds) == (3.5, 2)


def test_all_differences_in_a_measure_are_one_family():
    values = planted(0.0, 0.5, 0.2, 8)
    generator = np.random.default_rng(0)
    for found in values.values():
        for seed in found:
            found[seed] += generator.normal(0, 0.1)
    first, second = differences(PAIRS, values, "loss")
    small, large = sorted((first.comparison.t_p, second.comparison.t_p))
    assert sorted((first.p, second.p)) == pytest.approx([min(2 * small, 1), max(2 * small, large)])


def test_arms_without_a_seed_in_common_have_no_difference():
    assert differences(PAIRS, {"hybrid-loud": {1: 0.0}, "mlm-loud": {2: 0.0}, "hybrid-quiet": {1: 0.0}}, "loss") == []


@pytest.mark.parametrize(("kind", "named"), [("", "sst2, stsb"), (DEVELOPMENT, "sst2, stsb, held-out training rows")])
def test_scores_are_those_of_the_rows_that_were_scored(kind, named):
    """Of linear heads on mean-pooled vectors."""
    results = Results()
    shared = {"kind": "probe" + kind, "model": "mlm", "replicate": 3, "head": "linear"}
    for task, metric, value in (("sst2", "accuracy", 0.6), ("stsb", "spearmanr", 0.4)):
        add_record(results, **shared, task=task, metric=metric, pooling="mean", value=value)
        add_record(results, **shared, task=task, metric=metric, pooling="max", value=0.9)
        add_record(results, **(shared | {"head": "mlp"}), task=task, metric=metric, pooling="mean", value=0.1)
    found = measured({"mlm": []}, results, ["sst2", "stsb"])
    assert found[f"mean probe score ({named})"] == {"mlm": pytest.approx({3: 0.5})}
    assert sum(bool(by_seed["mlm"]) for by_seed in found.values()) == 1


def test_difference_of_one_seed_is_in_no_family():
    several = noisy({"hybrid-loud": {1: 5.0, 2: 7.0, 3: 6.0}, "mlm-loud": {1: 1.0, 2: 2.0, 3: 2.5}})
    alone, single = differences(PAIRS, several | {"hybrid-quiet": {1: 1.0}, "mlm-quiet": {1: 0.0}}, "loss")
    assert alone.p == alone.comparison.t_p < 1
    assert (single.p, single.comparison.num_seeds) == (1.0, 1)
