"""What must not reach the disk: looked for in the bytes of everything that is written."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import pytest

from metamodel.data.task import TaskDescription
from store import History, privacy
from store.privacy import REDACTED, redact_text, scrub_message
from store.recording import spool
from store.upkeep.export import export_history
from store.values import Opaque, decode_value, encode_value

SECRET = "hunter2-s3cr3t"


@dataclass
class Login:
    password: str
    host: str = "db"


LEAKS: dict[str, Any] = {
    "hf_token": SECRET,
    "nested": {"deep": [{"api_key": SECRET}, ("x", {"client_secret": SECRET})]},
    "dataclass": Login(SECRET),
    "pairs": [("password", SECRET), ("lr", 0.1)],
    "named": [{"name": "WANDB_API_KEY", "value": SECRET}],
    "arguments": ["--lr", "0.1", "--api-key", SECRET, f"--token={SECRET}"],
    "url": f"https://me:{SECRET}@host/x",
    "slash": f"https://me:a/{SECRET}@host/x",
    "query": f"s3://bucket/x?page=3&access_token={SECRET}",
    "signed": f"https://host/blob?sv=1&sig={SECRET}",
    "fragment": f"https://host/#id_token={SECRET}",
    "text": f"login with password={SECRET}; go on",
    "json": json.dumps({"secret_key": SECRET}),
    "header": f"Authorization: Bearer {SECRET}",
    "keys": {f"https://u:{SECRET}@host": 1},
    "callable": f"connect(password='{SECRET}')",
    "number": {"password": 20071969},
    "bytes": {"secret": SECRET.encode()},
}


def written(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


def test_credentials_reach_no_file_whatever_they_are_wrapped_in(tmp_path: Path) -> None:
    data = {"api_key": SECRET, "url": f"https://u:{SECRET}@h/x"}
    task = TaskDescription(name=f"https://u:{SECRET}@h/x", data_names=data)
    with History(tmp_path / "history.db") as history:
        for name, value in LEAKS.items():
            run = history.start_run(task=task, hparams={name: value}, requested={name: value}, description={name: value})
            run.observe({name: value})
            run.finish(error=RuntimeError(f"cannot log in at https://me:{SECRET}@host with token={SECRET} or Bearer {SECRET}"))
        history.save_recommendation({"id": "r", "config": LEAKS}, current=LEAKS, changes=[{"password": SECRET}])
        history.start_run(task=f"https://u:{SECRET}@h/y").finish()
        history.save_model({"id": "m", "info": {"token": SECRET}})
        spool.append(history.path, [])
        export_history(history, tmp_path / "runs.jsonl")
        stored = written(tmp_path)
        assert SECRET.encode() not in stored
        assert b"20071969" not in stored
        assert b"aHVudGVyMi1zM2NyM3Q" not in stored  # as base64
        assert REDACTED.encode() in stored
        assert (
            history.runs()[0].error == f"RuntimeError: cannot log in at https://{REDACTED}@host with token={REDACTED} or Bearer {REDACTED}"
        )


def test_the_spool_holds_no_credentials_either(tmp_path: Path) -> None:
    with History(tmp_path / "history.db", for_recording=True) as history:
        (tmp_path / "history.db").chmod(0o400)
        history.path.unlink()
        with pytest.warns(Warning, match="cannot be written"):
            run = history.start_run(task="t", hparams=LEAKS)
        run.finish(error=f"password={SECRET}")
        stored = written(Path(f"{history.path}.spool"))
        assert run.id.encode() in stored
        assert SECRET.encode() not in stored


@pytest.mark.parametrize(
    "text",
    [
        "Answer: yes/no",
        "https://host:8080/a@b",
        "https://medium.com/@user/x",
        "s3://bucket/key",
        "max_tokens=5, pad_token='<pad>', tokenizer=bert",
        "sk-learn-random-forest-classifier",
        "token=None password=",
        "a:b=c",
        "",
    ],
)
def test_what_only_looks_similar_stays_as_it_is(text: str) -> None:
    assert redact_text(text) == text
    assert decode_value(encode_value(text)) == text


@pytest.mark.parametrize(
    "name", ["momentum", "pad_token_id", "max_tokens", "patience", "secretary", "key_size", "author", "passes", "num_keys"]
)
def test_names_of_ordinary_hyperparameters_are_no_credentials(name: str) -> None:
    assert decode_value(encode_value(5, name)) == 5


@pytest.mark.parametrize(
    ("value", "last"),
    [
        (Path("/home/alice/data/mnist"), "mnist"),
        ("/home/alice/data/mnist", "mnist"),
        ("~/data/mnist", "mnist"),
        ("file:///srv/data/x.csv", "x.csv"),
        (PureWindowsPath("C:/Users/alice/x"), "x"),
        ("C:\\Users\\alice\\x", "x"),
        ("\\\\nas\\share\\x", "x"),
        ("/home/alice", "~"),
    ],
)
def test_absolute_paths_become_their_last_part_and_a_hash(value: Any, last: str, monkeypatch: pytest.MonkeyPatch) -> None:
    back = decode_value(encode_value(value))
    assert isinstance(back, Opaque)
    assert back.kind == "hidden_path"
    assert back.text.startswith(f".../{last} (sha256 ")
    assert encode_value(value) == encode_value(value) == encode_value(back)
    assert "alice" not in encode_value({"in": [value, {str(value): value}]})
    assert encode_value(value) != encode_value(f"{value}2")
    monkeypatch.setenv("METAHP_RECORD_PATHS", "1")
    assert decode_value(encode_value(value)) == value


@pytest.mark.parametrize("value", ["data/mnist", "configs/base.yaml", "/gpu:0", "val/acc", "/data", Path("runs/one"), "org/model"])
def test_relative_paths_and_what_is_no_path_stay(value: Any) -> None:
    assert decode_value(encode_value(value)) == value


def test_paths_inside_texts_and_errors_are_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decode_value(encode_value("--data /home/alice/x.csv --lr 3")) == "--data .../x.csv --lr 3"
    assert scrub_message("No such file: '/mnt/my data/x.csv', see https://host/a/b") == "No such file: '.../x.csv', see https://host/a/b"
    assert scrub_message('File "/opt/app/train.py", line 3, ratio 3/4/5 of /etc') == 'File ".../train.py", line 3, ratio 3/4/5 of /etc'
    monkeypatch.setenv("METAHP_RECORD_PATHS", "1")
    assert scrub_message("at /mnt/x/y: token=abcdef") == f"at /mnt/x/y: token={REDACTED}"


def test_the_hosts_name_and_the_users_paths_are_recorded_only_if_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privacy, "host_name", lambda: "alices-workstation")
    privacy._host_pattern.cache_clear()
    where = "/home/alice/secret-project/data"
    for number, asked in enumerate(("", "1")):
        monkeypatch.setenv("METAHP_RECORD_PATHS", asked)
        folder = tmp_path / str(number)
        with History(folder / "history.db") as history:
            hparams = {"root": Path(where), "data_dir": where, "log": f"written to {where}/x on alices-workstation", "device": "cuda"}
            run = history.start_run(task="t", hparams=hparams, description={"dir": where})
            run.finish(error=FileNotFoundError(2, "No such file or directory", where))
            history.save_recommendation({"id": "r", "config": hparams}, current=hparams, changes=[])
            versions = history.run(run.id).versions
        stored = written(folder)
        for private in (b"alices-workstation", b"/home/alice", b"secret-project", os.fsencode(Path.home()) + b"/"):
            assert (private in stored) is (asked == "1" and private != os.fsencode(Path.home()) + b"/")
        assert ("host" in versions) is (asked == "1")
    privacy._host_pattern.cache_clear()
