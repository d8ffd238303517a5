"""The shared core: what a name means is recognised or asked for, nothing is guessed, bad records are counted, good ones come in."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from store import Curve, History, InvalidArgumentError, ObjectiveError, RunStatus
from store.importers.foreign import MAX_POINTS, ForeignRun, Progress, Record, SkippedRecord, curve_of, flattened, thinned, value_of_text
from store.importers.mapping import ImportOptions
from store.importers.pipeline import import_source


@dataclass
class Listed:
    """A source of given records."""

    records: list[Record]
    kind: str = "listed"
    place: str = "https://user:pass@host/runs?token=abc"

    def read(self, progress: Progress) -> Iterator[Record]:
        for index, record in enumerate(self.records):
            progress(index / len(self.records), "reading")
            yield record


def run(number: int, value: float = 0.5, metric: str = "val_acc", task: str = "t", **hparams: object) -> ForeignRun:
    return ForeignRun((str(number),), task, dict(hparams) or {"lr": 0.1}, {metric: Curve([0], [value])}, order=number)


def test_bad_records_are_counted_by_reason_and_the_good_ones_are_imported(history: History) -> None:
    records = [
        run(1),
        SkippedRecord("is damaged", "a"),
        run(2),
        SkippedRecord("is damaged", "b"),
        SkippedRecord("is deleted", "c", is_bad=False),
        run(2),
    ]
    report = import_source(history, Listed(records))
    assert (report.n_found, report.n_new, report.n_left_out, report.n_bad) == (6, 2, 4, 2)
    assert report.left_out[0] == ("is damaged", 2, ("a", "b"))
    assert {reason for reason, _, _ in report.left_out} == {"is damaged", "is deleted", "is the same run as another one of the source"}
    assert len(history.runs()) == 2


def test_the_place_is_stored_without_credentials(history: History) -> None:
    import_source(history, Listed([run(1)]))
    assert history.runs()[0].description["origin"]["place"] == "https://[redacted]@host/runs?token=[redacted]"


def test_a_dry_run_shows_what_would_be_imported_and_writes_nothing(history: History) -> None:
    import_source(history, Listed([run(1)]))
    report = import_source(history, Listed([run(1), run(2)]), dry_run=True)
    assert (report.n_new, report.n_known, report.is_written) == (1, 1, False)
    assert len(history.runs()) == 1
    assert import_source(None, Listed([run(1)]), dry_run=True).n_new == 1


def test_progress_goes_up_to_writing(history: History) -> None:
    seen: list[tuple[float, str]] = []
    import_source(history, Listed([run(1), run(2)]), progress=lambda share, text: seen.append((share, text)))
    assert [share for share, _ in seen] == sorted(share for share, _ in seen)
    assert seen[-1] == (0.95, "writing")


def test_another_objective_reads_the_known_runs_anew(history: History) -> None:
    both = ForeignRun(("1",), "t", {"lr": 0.1}, {"val_acc": Curve([0], [0.5]), "val_loss": Curve([0], [2.0])})
    import_source(history, Listed([both]), ImportOptions(objective="val_acc"))
    report = import_source(history, Listed([both]), ImportOptions(objective="val_loss", task="other"))
    assert (report.n_new, report.n_updated) == (0, 1)
    (found,) = history.runs()
    assert (found.objective, found.direction, found.objective_best, found.task_name) == ("val_loss", "min", 2.0, "other")


def test_a_run_that_was_moved_to_another_task_by_hand_stays_there_when_it_goes_on(history: History) -> None:
    import_source(history, Listed([run(1, 0.5)]))
    history.split_task([history.runs()[0].id], "mine")
    assert import_source(history, Listed([run(1, 0.6)])).n_updated == 1
    assert [(found.task_name, found.objective_best) for found in history.runs()] == [("mine", 0.6)]


def test_a_newer_reading_wins_where_histories_are_merged(history: History, tmp_path: Path) -> None:
    import_source(history, Listed([run(1, 0.5)]))
    with History(tmp_path / "other.db") as other:
        other.merge(history)
        import_source(other, Listed([run(1, 0.6)]))
        history.merge(other)
    assert [found.objective_best for found in history.runs()] == [0.6]


def test_the_metric_that_decides_is_asked_for_and_a_wrong_one_is_refused(history: History) -> None:
    two = ForeignRun(("1",), "t", {"lr": 0.1}, {"val_acc": Curve([0], [0.5]), "loss": Curve([0], [2.0])})
    with pytest.raises(InvalidArgumentError, match=r"task 't' has 'val_acc' \(1 runs\), 'loss' \(1 runs\): pass --objective with the one"):
        import_source(history, Listed([two]))
    with pytest.raises(InvalidArgumentError, match=r"no 'val_ac'; recorded were: val_acc, loss\. Did you mean 'val_acc'\?"):
        import_source(history, Listed([two]), ImportOptions(objective="val_ac"))
    assert history.runs() == []


def test_a_direction_that_no_name_implies_is_asked_for_and_a_wrong_one_refused(history: History) -> None:
    source = Listed([run(1, metric="quality")])
    with pytest.raises(InvalidArgumentError, match="'quality' does not imply a direction: pass --direction"):
        import_source(history, source)
    with pytest.raises(ObjectiveError, match="'min' or 'max'"):
        import_source(history, source, ImportOptions(direction="up"))
    import_source(history, source, ImportOptions(direction="maximize"))
    assert history.runs()[0].direction == "max"


def test_a_direction_against_the_source_counts_and_is_noted(history: History) -> None:
    record = run(1)
    record.objective, record.direction = "val_acc", "min"
    report = import_source(history, Listed([record]), dry_run=True)
    assert report.notes == ["task 't': the source gives min for 'val_acc', whose name implies max"]
    report = import_source(history, Listed([record]), ImportOptions(direction="max"))
    assert history.runs()[0].direction == "max"
    assert "yours is used" in report.notes[0]


def test_runs_without_a_value_are_imported_only_where_they_failed(history: History) -> None:
    failed = ForeignRun(("f",), "t", {"lr": 9.0}, status=RunStatus.FAILED, error="RuntimeError: out of paper")
    silent = ForeignRun(("s",), "t", {"lr": 1.0})
    report = import_source(history, Listed([run(1), failed, silent]))
    assert report.statuses == {"completed": 1, "failed": 1}
    assert report.left_out == [("has no value of 'val_acc'", 1, ("s",))]
    assert {found.error for found in history.runs()} == {None, "RuntimeError: out of paper"}


def test_a_source_without_any_metric_leaves_everything_out_with_the_reason(history: History) -> None:
    report = import_source(history, Listed([ForeignRun(("s",), "t", {"lr": 1.0})]), ImportOptions(objective="val_acc", direction="max"))
    assert (report.n_new, report.left_out[0][0]) == (0, "has no value of 'val_acc'")


@pytest.mark.parametrize(
    ("values", "unit"), [((0.5, 0.9), "fraction"), ((50.0, 90.0), "percent"), ((-0.5, 0.9), None), ((50.0, 900.0), None)]
)
def test_percent_and_fraction_are_recognised_where_values_leave_no_other_reading(
    history: History, values: tuple[float, float], unit: str | None
) -> None:
    report = import_source(history, Listed([run(index, value) for index, value in enumerate(values)]))
    assert [entry.becomes for entry in report.names if entry.kind.startswith("unit")] == ([] if unit is None else [unit])
    assert {found.objective_best for found in history.runs()} == set(values)


def test_values_of_both_units_are_asked_about(history: History) -> None:
    source = Listed([run(1, 0.9), run(2, 85.0)])
    with pytest.raises(InvalidArgumentError, match=r"above 1 in 1 runs and not in 1: pass --unit val_acc=percent"):
        import_source(history, source)
    report = import_source(history, source, ImportOptions(units={"val_acc": "fraction"}))
    assert (report.n_new, report.left_out[0][0]) == (1, "has values of 'val_acc' above 1, which is set to be a fraction")
    assert import_source(history, source, ImportOptions(units={"val_acc": "percent"}, task="p")).n_new == 1


def test_percent_is_converted_where_the_task_has_fractions_already(history: History) -> None:
    with history.start_run(task="t", hparams={"lr": 0.1}, objective="val_acc") as own:
        own.log(val_acc=0.8)
    report = import_source(history, Listed([run(1, 90.0), run(2, 70.0)]))
    assert report.notes[0] == "task 't': 'val_acc' is percent here and fraction in the history: converted to fraction"
    assert sorted(found.objective_best or 0.0 for found in history.runs()) == pytest.approx([0.7, 0.8, 0.9])
    again = import_source(history, Listed([run(1, 90.0), run(2, 70.0)]))
    assert (again.n_new, again.n_updated) == (0, 0)


def test_a_share_above_one_is_asked_about_and_converted_when_it_is_percent(history: History) -> None:
    source = Listed([run(1, dropout=50), run(2, dropout=10)])
    with pytest.raises(InvalidArgumentError, match="'dropout' is a share, but holds 50: pass --unit dropout=percent"):
        import_source(history, source)
    import_source(history, source, ImportOptions(units={"dropout": "percent"}))
    assert sorted(found.hparams["dropout"] for found in history.runs()) == [0.1, 0.5]


def test_names_are_recognised_renamed_on_request_and_never_share_one(history: History) -> None:
    records = [run(1, lr=0.1, lr0=0.2, **{"model.dropout": 0.3})]
    report = import_source(history, Listed(records), ImportOptions(names={"lr0": "learning_rate"}))
    assert history.runs()[0].hparams == {"lr": 0.1, "learning_rate": 0.2, "model.dropout": 0.3}
    why = {entry.name: entry.because for entry in report.names}
    assert why["lr0"] == "set by you"
    assert why["lr"] == "learning_rate is there too"
    assert why["model.dropout"] == "part of a longer name: kept; --name model.dropout=dropout if it is that"
    with pytest.raises(InvalidArgumentError, match=r"it has no 'rate'; it has: lr, lr0, model\.dropout"):
        import_source(history, Listed(records), ImportOptions(names={"rate": "learning_rate"}))


def test_a_batch_size_of_several_devices_is_asked_about(history: History) -> None:
    source = Listed([run(1, batch_size=64, num_devices=4), run(2, bs=32)])
    with pytest.raises(InvalidArgumentError, match=r"'batch_size' may be per device or global, and 1 runs used up to 4 devices"):
        import_source(history, source)
    import_source(history, source, ImportOptions(batch="per-device"))
    assert {found.hparams.get("global_batch_size") for found in history.runs()} == {256, 32}
    import_source(history, source, ImportOptions(batch="global"))
    found = history.runs()[0].hparams
    assert found == {"global_batch_size": 64, "num_devices": 4}


def test_a_batch_size_of_one_device_needs_no_answer(history: History) -> None:
    report = import_source(history, Listed([run(1, batch_size=64)]))
    (reading,) = [entry for entry in report.names if entry.kind == "batch size"]
    assert "both are the same" in reading.because


@pytest.mark.parametrize("options", [{"units": {"dropout": "promille"}}, {"batch": "both"}], ids=["unit", "batch"])
def test_answers_outside_what_is_possible_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InvalidArgumentError, match="but got"):
        ImportOptions(**options)  # type: ignore[arg-type]


def test_too_much_of_anything_is_cut_and_noted(history: History) -> None:
    record = run(1, **{f"p{index}": index for index in range(600)}, prompt="x" * 5000)
    record.curves |= {f"m{index}": Curve([0], [1.0]) for index in range(200)}
    report = import_source(history, Listed([record]), ImportOptions(objective="val_acc"))
    (found,) = history.runs()
    assert len(found.hparams) == 500
    assert len(history.metric_names(found.id)) == 100
    assert report.notes[:3] == [
        "left out: 1 hyperparameters longer than 2000 characters",
        "left out: 100 hyperparameters beyond the first 500 of a run",
        "left out: 101 metrics beyond the first 100 of a run",
    ]


def test_a_thinned_curve_keeps_its_ends_and_its_extremes() -> None:
    points = [(step, math.sin(step / 500) + 5 * (step == 777) - 5 * (step == 1234), None, float(step)) for step in range(20_000)]
    points.append((20_000, math.nan, None, None))
    curve = curve_of(points)
    assert curve is not None
    assert len(curve.steps) <= MAX_POINTS
    assert {0, 777, 1234, 20_000} <= set(curve.steps)
    assert thinned(points[:10], 4)[0] == points[0]


def test_the_last_value_of_a_step_counts_and_steps_that_no_database_holds_do_not() -> None:
    curve = curve_of([(2, 0.2, None, None), (1, 0.1, None, None), (2, 0.3, None, None), (2**70, 9.0, None, None)])
    assert curve is not None
    assert (curve.steps, curve.values) == ([1, 2], [0.1, 0.3])


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("64", 64), ("True", True), ("None", None), ("adam", "adam"), ("1_000", "1_000"), ("0x10", "0x10"), (" 7 ", 7)],
)
def test_parameters_stored_as_text_get_their_type_back(text: str, value: object) -> None:
    assert value_of_text(text) == value
    assert type(value_of_text(text)) is type(value)


def test_nested_names_are_joined_and_bounded() -> None:
    deep: dict[str, object] = {}
    for _ in range(50):
        deep = {"a": deep, "b": 1}
    assert flattened({"x": {"y": 1, "z": {"w": 2}}}) == {"x.y": 1, "x.z.w": 2}
    assert len(flattened(deep)) == 8
    assert len(flattened({str(index): index for index in range(10_000)})) == 500
