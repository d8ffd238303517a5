from pathlib import Path

import pytest
from rich.console import Console

from store import Direction, HParam, RunRecord, RunStatus
from studies.demo.report import ADVISED, DEFAULT, HINDSIGHT, RANDOM, compare, remarks, results_table, save_picture
from studies.demo.runs import DEMO_DEFAULTS, DemoJob, DemoOutcome, DemoTask

TASK = DemoTask("wine", "rnn")


def outcome(arm, value, seed=0, direction="max", mode=None, advice=None, **changes):
    config = {**DEMO_DEFAULTS, **changes}
    run = RunRecord(
        f"{arm}-{seed}-{value}",
        "t1",
        "wine",
        RunStatus.COMPLETED,
        objective="val_acc" if direction == "max" else "val_loss",
        direction=direction,
        objective_best=value,
        recommendation_id=advice,
        provenance={name: HParam(name, name, setting) for name, setting in config.items()},
    )
    return DemoOutcome(DemoJob(TASK, arm, DEMO_DEFAULTS if mode else config, seed, 2, Path("h.db"), mode), run, (value / 2, value), 1.5, "")


def example(direction="max"):
    return compare(
        TASK,
        [
            outcome(DEFAULT, 0.6, 0, direction),
            outcome(DEFAULT, 0.8, 1, direction),
            *(outcome(RANDOM, 0.1 * (k + 1), 0, direction, num_layers=k + 2) for k in range(3)),
            *(outcome(RANDOM, 0.1 * (k + 1) + 0.2, 1, direction, num_layers=k + 2) for k in range(3)),
            outcome(ADVISED, 0.9, 0, direction, learning_rate=0.01),
            outcome(ADVISED, 0.9, 1, direction, learning_rate=0.01),
        ],
    )


def arm(comparison, name):
    return next(arm for arm in comparison.arms if arm.name == name)


def test_an_arm_is_the_mean_and_deviation_over_its_runs():
    default = arm(example(), DEFAULT)
    assert default.mean == pytest.approx(0.7)
    assert default.deviation == pytest.approx(0.1414, abs=1e-4)


@pytest.mark.parametrize(("direction", "best"), [("max", 0.4), ("min", 0.2)])
def test_the_best_random_configuration_is_chosen_by_its_mean_over_seeds_in_the_direction(direction, best):
    comparison = example(direction)
    assert comparison.direction is Direction(direction)
    assert arm(comparison, HINDSIGHT).mean == pytest.approx(best)
    assert arm(comparison, HINDSIGHT).is_chosen_afterwards


def test_what_was_chosen_afterwards_never_counts_as_best():
    comparison = example("min")
    assert arm(comparison, HINDSIGHT).mean < comparison.best_arm().mean
    assert comparison.best_arm().name == RANDOM


def test_the_table_fits_eighty_columns_and_shows_every_arm_in_full():
    later = outcome("recommended + 5 own runs", 0.95, learning_rate=0.0123456, batch_size=128, dropout=0.25)
    comparison = compare(TASK, [outcome for arm in example().arms[:2] for outcome in arm.outcomes] + [later])
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(results_table(comparison))
    text = console.export_text()
    for part in ("recommended + 5 own runs", "0.700 ± 0.141", "0.01235, 128, 2, 0.25", f"{HINDSIGHT} *", "val_acc, higher is better"):
        assert part in text
    assert "…" not in text


def test_the_picture_is_a_png_of_a_readable_size(tmp_path):
    save_picture([example(), example("min")], 128, 16, tmp_path / "new" / "demo.png")
    content = (tmp_path / "new" / "demo.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert int.from_bytes(content[16:20]) >= 1200


def test_a_recommendation_that_failed_or_changed_nothing_is_said():
    runs = [
        outcome(DEFAULT, 0.5),
        outcome(ADVISED, 0.5, 0, mode="best"),
        outcome(ADVISED, 0.5, 1, mode="best", advice="r1"),
        outcome(ADVISED, 0.9, 2, mode="best", advice="r2", learning_rate=0.01),
    ]
    assert remarks(compare(TASK, runs)) == [
        "recommended: the recommendation FAILED in 1 of 3 runs, which trained the defaults",
        "recommended: kept the defaults in 1 of 3 runs, no gain was probable enough",
    ]
    assert remarks(example()) == []
