"""No error of ours leaves a hook."""

from __future__ import annotations

import warnings

import pytest

from lightning_metahp.guard import guarded
from store import MetaHPWarning
from store.switches import is_off


class Owner:
    @guarded
    def hook(self) -> int:
        raise RuntimeError("a mistake of ours")

    @guarded
    def interrupted(self) -> None:
        raise KeyboardInterrupt


def test_an_error_is_warned_about_once_with_its_cause() -> None:
    owner = Owner()
    with pytest.warns(MetaHPWarning, match=r"^metahp: Owner\.hook failed with RuntimeError: a mistake of ours\. Training goes on;"):
        assert owner.hook() is None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        owner.hook()
    assert caught == []


def test_where_warnings_are_errors_it_is_logged_instead(caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Owner().hook()
    assert "a mistake of ours" in caplog.text


def test_ctrl_c_passes() -> None:
    with pytest.raises(KeyboardInterrupt):
        Owner().interrupted()


@pytest.mark.parametrize(("value", "expected"), [("off", True), ("OFF", True), ("0", True), ("", False), ("on", False)])
def test_the_switch(monkeypatch: pytest.MonkeyPatch, value: str, expected: bool) -> None:
    monkeypatch.setenv("METAHP", value)
    assert is_off() is expected
