"""docs/metrics.md names exactly what is logged."""

import ast
import inspect

from documented_metrics import documented, undocumented, unemitted

from speciarl.category import Category
from speciarl.reward.barrier import GroupOutcome
from speciarl.training.observability.metrics import training_metrics, validation_metrics
from speciarl.training.observability.rollout_stats import RolloutStats
from speciarl.training.reward_info import reward_extra_info
from speciarl.training.trainer import trainer
from speciarl.verdict import Source, Verdict
from speciarl.verifier_server.stats import Stats


def everything() -> set[str]:
    """All names of a step and a validation in which everything is defined."""
    stats = RolloutStats(groups=1, waited_s=1.0, judging_s=2.0)
    verdict = Verdict(Category.SPECIFIC, 1.0, Source.LIVE)
    stats.record_rollout(verdict)
    outcome = GroupOutcome((1.0,), Category.SPECIFIC, 1)
    record = reward_extra_info(verdict, "lion", outcome, "pets", {}, seen=verdict, group_reward=1.0)
    training = training_metrics([record], stats, [Stats().as_dict()], 1.0)
    columns = {"category": ["specific"] * 3, "answer": ["lion"] * 3}
    validation = validation_metrics(["pets"] * 3, ["u"] * 3, columns, {("pets", "u"): 3})
    return set(training) | set(validation) | written_by_the_trainer()


def written_by_the_trainer() -> set[str]:
    """Names that the trainer adds by hand, as in ``metrics["val-core/…"] = …``."""
    return {
        node.slice.value
        for node in ast.walk(ast.parse(inspect.getsource(trainer)))
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and "/" in str(node.slice.value)
    }


def test_every_logged_name_is_documented() -> None:
    assert undocumented(everything()) == []


def test_every_documented_name_is_logged() -> None:
    assert unemitted(everything()) == []


def test_no_name_is_documented_twice() -> None:
    assert len(documented()) == len(set(documented()))
