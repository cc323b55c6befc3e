"""The arguments of LLM-JEPA: every one of the objective's reaches it."""

from dataclasses import asdict

from predrec.modeling.modeling_llm_jepa import LLMJepaObjective
from predrec.trainers.llm_jepa_args import LLMJepaArguments

CHANGED = {
    "jepa_lambda": 0.3,
    "gamma": 0.7,
    "distance": "infonce",
    "temperature": 0.2,
    "symmetric_infonce": True,
    "target_grad": "stop",
    "jepa_layer": -2,
}
NAMES = {"symmetric_infonce": "symmetric", "jepa_layer": "layer"}
"""Arguments that the objective calls otherwise."""


def test_every_argument_reaches_the_objective(tmp_path):
    found = asdict(LLMJepaArguments(output_dir=str(tmp_path), **CHANGED).objective())
    assert found == {NAMES.get(name, name): value for name, value in CHANGED.items()} | {
        "method": "llm_jepa",
        "separation": None,
    }


def test_the_objective_of_the_defaults_is_its_own_default(tmp_path):
    assert LLMJepaArguments(output_dir=str(tmp_path)).objective() == LLMJepaObjective()


def test_the_method_reaches_the_objective_with_its_lambda(tmp_path):
    for method, weight in (("ntp", 0.0), ("tube", 0.02)):
        objective = LLMJepaArguments(output_dir=str(tmp_path), method=method).objective()
        assert (objective.method, objective.jepa_lambda) == (method, weight)
