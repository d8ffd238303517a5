import pytest

from store import History, InvalidArgumentError
from studies.demo.plan import OWN_RUN, DemoPlan, later_jobs, new_chains, past_jobs
from studies.demo.report import ADVISED, DEFAULT, RANDOM
from studies.demo.run import main, prepare_folder, run_demo
from studies.demo.runs import DemoTask

SMALL = DemoPlan(
    past_tasks=(DemoTask("iris", "mlp"), DemoTask("diabetes", "cnn")),
    new_tasks=(DemoTask("wine", "mlp"),),
    seeds=(0, 1),
    n_random=2,
    n_own_runs=2,
    epochs=2,
    workers=1,
)


@pytest.mark.slow
def test_the_whole_loop_in_miniature(tmp_path):
    history, shares = tmp_path / "history.db", []
    result = run_demo(SMALL, tmp_path, history, lambda part, share: shares.append((part, share)))

    with History(history) as opened:
        assert len(opened.runs()) == len(result.past) == 16
        assert len(opened.tasks()) == 2
        assert opened.models()
    (comparison,) = result.comparisons
    names = [arm.name for arm in comparison.arms]
    assert {DEFAULT, RANDOM, ADVISED, f"{ADVISED} + 2 own runs"} <= set(names)
    assert (tmp_path / "demo.png").stat().st_size > 10_000
    assert [share for part, share in shares if part == "new tasks"][-1] == pytest.approx(1.0)

    for outcome in result.outcomes:
        if outcome.job.arm in {DEFAULT, RANDOM}:
            assert outcome.config == dict(outcome.job.config)
            assert outcome.run.recommendation_id is None
        if outcome.job.arm == ADVISED:
            with History(outcome.job.history) as opened:
                advice = opened.recommendation(outcome.run.recommendation_id)["recommendation"]
                assert [run.id for run in opened.runs(outcome.run.task_id)] == [outcome.run.id]
            assert advice["evidence"]["n_runs"] == advice["evidence"]["n_related"] == 0
            assert advice["evidence"]["n_tasks"] == 2


def test_the_standard_plan_is_over_a_hundred_runs_on_at_least_eight_tasks_of_all_families(tmp_path):
    plan = DemoPlan()
    jobs = past_jobs(plan, tmp_path / "h.db")
    assert len(jobs) > 100
    assert len({job.task for job in jobs}) >= 8
    assert {job.task.family for job in jobs} == {"mlp", "cnn", "rnn", "transformer"}
    assert len({job.task.dataset for job in jobs} & {task.dataset for task in plan.new_tasks}) == 0


def test_every_arm_trains_for_equally_long_on_the_same_seeds(tmp_path):
    chains = [*new_chains(SMALL, tmp_path / "h.db", tmp_path), later_jobs(SMALL, tmp_path)]
    jobs = [job for chain in chains for job in chain if job.arm != OWN_RUN]
    assert {job.epochs for job in jobs} == {2}
    seeds = {name: sorted({job.seed for job in jobs if job.arm == name}) for name in {job.arm for job in jobs}}
    assert set(map(tuple, seeds.values())) == {(0, 1)}
    assert {job.seed for chain in chains for job in chain if job.arm == OWN_RUN}.isdisjoint({0, 1})


def test_advised_runs_see_a_copy_of_the_past_that_no_other_run_writes_to(tmp_path):
    jobs = [job for chain in new_chains(SMALL, tmp_path / "h.db", tmp_path) for job in chain]
    advised = [job for job in jobs if job.arm == ADVISED]
    assert all(job.copy_of == tmp_path / "h.db" for job in advised)
    assert all(sum(other.history == job.history for other in jobs) == 1 for job in advised)


def test_a_new_task_must_be_new():
    with pytest.raises(InvalidArgumentError, match=r"but got 'iris', and the history has: breast_cancer, diabetes, iris, photos"):
        DemoPlan(new_tasks=(DemoTask("iris", "mlp"),))


def test_an_existing_history_is_refused_in_one_line_and_kept(tmp_path, capsys):
    with History(tmp_path / "mine.db") as history:
        history.start_run(task="t").finish()
    assert main(["--out", str(tmp_path / "out"), "--history", str(tmp_path / "mine.db")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: The demonstration needs a fresh history")
    assert error.count("\n") == 1
    with History(tmp_path / "mine.db") as history:
        assert len(history.runs()) == 1


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path, capsys):
    (tmp_path / "history.db").write_text("precious")
    assert main(["--out", str(tmp_path)]) == 1
    assert "Pass another folder with --out." in capsys.readouterr().err
    assert (tmp_path / "history.db").read_text() == "precious"


def test_a_former_demonstration_is_replaced(tmp_path):
    prepare_folder(tmp_path / "out")
    (tmp_path / "out" / "history.db").write_text("old")
    prepare_folder(tmp_path / "out")
    assert not (tmp_path / "out" / "history.db").exists()


def test_a_number_too_small_is_one_clear_error(capsys):
    assert main(["--seeds", "0"]) == 1
    assert capsys.readouterr().err == "Error: The number of seeds must be at least 1, but got 0. Pass 1 or more.\n"
