from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from store.ids import new_id, task_id_of, utc_age_s, utc_now


def test_ids_are_unique_and_sort_in_the_order_they_were_made() -> None:
    ids = [new_id() for _ in range(500)]
    assert ids == sorted(set(ids))


def test_ids_made_by_several_threads_are_unique() -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda _: new_id("m-"), range(400)))
    assert len(set(ids)) == 400
    assert all(name.startswith("m-") for name in ids)


def test_the_same_identity_gives_the_same_task_id_whatever_the_order_of_its_keys() -> None:
    first = task_id_of({"model_class": "Net", "n_train": 100, "shape": [1, 2]})
    assert first == task_id_of({"shape": [1, 2], "n_train": 100, "model_class": "Net"})
    assert first != task_id_of({"shape": [1, 2], "n_train": 101, "model_class": "Net"})
    # ids travel between machines and versions: this one must never change
    assert task_id_of({"name": "digits"}) == "tefd7bdb5bad101f0"


def test_the_age_of_a_moment_is_told_and_unknown_moments_are_infinitely_old() -> None:
    assert 0 <= utc_age_s(utc_now()) < 5
    assert utc_age_s(None) == utc_age_s("yesterday") == float("inf")
    assert utc_age_s("2020-01-01T00:00:00") > 1e6
