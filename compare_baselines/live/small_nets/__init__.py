"""The suite ``small-nets``: small networks of four families on data made here, each as people write it, four times as wide, and longer."""

from compare_baselines.live.small_nets.figures import SuiteRun, TaskSearches, all_rows, read_suite
from compare_baselines.live.small_nets.suite import SuiteSettings, check_suite, run_suite
from compare_baselines.live.small_nets.task import suite_tasks

__all__ = ["SuiteRun", "SuiteSettings", "TaskSearches", "all_rows", "check_suite", "read_suite", "run_suite", "suite_tasks"]
