"""Experiments are read, checked and hashed before anything runs."""

import re

import pytest

from predrec.errors import UserError
from predrec.experiments.definition import Run, digest, read_experiment, resolve_arm, words_of

from .made import DEFINITION, write_definition


@pytest.fixture
def experiment(tmp_path):
    return read_experiment(write_definition(tmp_path))


@pytest.fixture
def changed(tmp_path):
    """Reads the experiment with a part of its text replaced."""

    def read(old: str, new: str):
        assert old in DEFINITION
        return read_experiment(write_definition(tmp_path, DEFINITION.replace(old, new)))

    return read


def test_arm_has_shared_and_own_arguments(experiment):
    arguments = experiment.arms["mlm"].arguments
    assert (arguments["max_seq_length"], arguments["objective"]) == ("32", "mlm")
    assert "why" not in arguments


def test_factor_multiplies_the_updates_and_rounds_to_tens(experiment):
    assert experiment.arms["mlm-time"].arguments["max_steps"] == "230"


def test_runs_are_seed_by_seed_and_come_once(experiment):
    names = [run.name for run in experiment.order]
    assert names == [
        *("mlm-1", "hybrid-1", "mlm-time-1"),
        *("mlm-2", "hybrid-2", "mlm-time-2"),
        *("mlm-3", "hybrid-3", "mlm-time-3"),
    ]


def test_seeds_can_begin_anywhere(changed):
    """Choices are made on other seeds than those that the declared test counts."""
    experiment = changed("{arms: [mlm, hybrid], seeds: 1}", "{arms: [mlm], seeds: 2, first_seed: 101}")
    assert [run.name for run in experiment.order][:3] == ["mlm-101", "mlm-102", "mlm-1"]


def test_declared_comparison_may_have_later_seeds_and_a_lower_level(experiment, changed):
    assert (experiment.primary.first_seed, experiment.primary.level) == (1, 0.05)
    primary = changed("  seeds: 8\n", "  seeds: 8\n  first_seed: 9\n  level: 0.025\n").primary
    assert [seed for seed in range(20) if primary.counts(seed)] == [*range(9, 17)]
    assert primary.level == 0.025


def test_order_without_runs_is_refused(tmp_path):
    text = re.sub(r"order:.*?probe:", "order: [{arms: [], seeds: 2}]\nprobe:", DEFINITION, flags=re.DOTALL)
    with pytest.raises(UserError, match="names no run"):
        read_experiment(write_definition(tmp_path, text))


def test_null_removes_a_shared_argument(changed):
    experiment = changed("{why: both losses}", "{why: both losses, tokenizer_name: null}")
    assert "tokenizer_name" not in experiment.arms["hybrid"].arguments


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("pairs:", "pears:", "`pears`"),
        ("[[hybrid, mlm]]", "[[hybrid, mml]]", "'mml'"),
        ("pairs: [[hybrid, mlm]]", "contrasts: [[hybrid, mml]]", "no arm 'mml' (contrasts)"),
        ("pairs: [[hybrid, mlm]]", "contrasts: [hybrid, mlm]", "`contrasts` holds 'hybrid'"),
        ("baseline: mlm-time", "baseline: mlm-thyme", "'mlm-thyme'"),
        ("same_time_as: hybrid", "same_time_as: hybird", "'hybird'"),
        ("seeds: 1}", "seeds: none}", "`seeds`"),
        ("{why: both losses}", "{objective: hybrid}", "no `why`"),
        ("{why: both losses}", "{why: both losses, seed: 3}", "`seed`"),
        ("  hybrid: {why", "  ../hybrid: {why", "'../hybrid'"),
        ("updates_factor: 2.26", "updates_factor: nan", "`updates_factor of mlm-time`"),
        ("scores: {sst2: accuracy, stsb: spearmanr}", "scores: {}", "`scores`"),
        ("  seeds: 8\n", "  seeds: 8\n  level: 1.5\n", "`level`"),
    ],
)
def test_mistake_is_named(changed, old, new, named):
    with pytest.raises(UserError, match=re.escape(named)):
        changed(old, new)


def test_argument_of_an_arm_is_checked_as_pretrain_does(changed):
    experiment = changed("{why: both losses}", "{why: both losses, loss_lamda: 0.2}")
    with pytest.raises(UserError, match=r"Arm `hybrid`.*`loss_lamda`.*`loss_lambda`"):
        resolve_arm(experiment.arms["hybrid"])


def test_arguments_of_an_arm_that_do_not_go_together_are_found_before_it_runs(changed):
    experiment = changed("{why: both losses}", "{why: both losses, jepa_temperature: 0.2}")
    with pytest.raises(UserError, match="Arm `hybrid`: `jepa_temperature` is only for `jepa_loss=infonce`"):
        resolve_arm(experiment.arms["hybrid"])


def test_tokenizer_of_the_command_serves_an_arm_without_one_and_is_not_in_its_definition(changed):
    arm = changed("{why: both losses}", "{why: both losses, tokenizer_name: null}").arms["hybrid"]
    with pytest.raises(UserError, match="Arm `hybrid`: `tokenizer_name` is missing"):
        resolve_arm(arm)
    assert "tokenizer_name" not in resolve_arm(arm, "somebody/tokenizer")[0]


def definition_of(experiment, name: str = "hybrid") -> str:
    return digest(resolve_arm(experiment.arms[name])[0])


def test_hash_is_of_values_not_of_how_they_are_written(experiment, changed):
    written = changed("max_steps: 100", "max_steps: 100\n  learning_rate: 1e-3")
    other = changed("max_steps: 100", "learning_rate: 0.001\n  max_steps: 100")
    assert definition_of(written) == definition_of(other) != definition_of(experiment)


def test_hash_ignores_what_trains_nothing(experiment, changed):
    logged = changed("max_steps: 100", "max_steps: 100\n  logging_steps: 3\n  num_threads: 1")
    assert definition_of(logged) == definition_of(experiment)


def test_hash_of_every_arm_is_another(experiment):
    assert len({definition_of(experiment, name) for name in experiment.arms}) == 3


def test_mapping_becomes_words():
    assert words_of({"tasks": ["a", "b"], "seeds": "2"}) == ["--tasks", "a", "b", "--seeds", "2"]


def test_name_of_a_run():
    assert Run("mlm", 3).name == "mlm-3"
