# SPDX-License-Identifier: Apache-2.0
"""What surrounds the process: standard streams that are closed or full, pipes, signals, limits."""

import json
import os
import resource
import signal
import subprocess
import time

import pytest
from conftest import BINARY, drawn_on_a_terminal, run


def start(*arguments, **options):
    return subprocess.run([BINARY, *map(str, arguments)], check=False, timeout=60, **options)


@pytest.mark.parametrize("stderr", ["full", "closed"])
def test_messages_that_cannot_be_written_change_nothing(models, tmp_path, stderr):
    plain = run("generate", "-m", models["dense"], "-p", "hi", "-n", 4, "--temp", 0).out
    with open("/dev/full", "wb") as full:
        to = {"stderr": full} if stderr == "full" else {"preexec_fn": lambda: os.close(2)}
        assert start("verify", "no/such/file", **to).returncode == 1
        assert start("generate", **to).returncode == 2
        state = tmp_path / "state"
        warned = ["generate", "-m", models["dense"], "-p", "hi", "-n", 4, "--temp", 0, "-t", 1000, "--state-save", state]
        done = start(*warned, stdout=subprocess.PIPE, **to)
        assert done.returncode == 0 and done.stdout == plain
        run("generate", "-m", models["dense"], "-n", 1, "--state-load", state)  # no message is in it
        run("moefy", models["dense"], tmp_path / "moe")
        assert start("moefy", models["dense"], tmp_path / "moe", **to).returncode == 0


def test_standard_input_that_is_closed_is_not_the_model(models):
    done = start("generate", "-m", models["dense"], "-f", "-", capture_output=True, preexec_fn=lambda: os.close(0))
    assert done.returncode == 1 and b"standard input: cannot read" in done.stderr and done.stdout == b""


def test_a_reader_that_goes_away_is_an_error_of_writing(models):
    command = f"{BINARY} generate -m {models['dense']} -p a -n 200 --ids"
    done = subprocess.run(["bash", "-c", f"{command} | head -c 1; exit ${{PIPESTATUS[0]}}"], capture_output=True, check=False)
    assert done.returncode == 1 and b"standard output: cannot write: Broken pipe" in done.stderr


@pytest.mark.parametrize("flag", ["-f", "--tokens"])
def test_the_first_ctrl_c_ends_waiting_for_a_pipe(models, flag):
    process = subprocess.Popen([BINARY, "generate", "-m", models["dense"], flag, "-", "-n", "5"], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdin.write(b"7 8 9")
    process.stdin.flush()
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 1
    assert process.stderr.read() == b"terrace generate: interrupted\n" and process.stdout.read() == b""


def test_ctrl_c_ends_tokenising(words_model, tmp_path):
    text = tmp_path / "text"
    with open(text, "w") as file:  # in parts: what this process holds counts as its children's memory elsewhere
        for _ in range(400):
            file.write("the king said nothing to the queen. " * 1000)
    process = subprocess.Popen([BINARY, "generate", "-m", words_model, "-f", text, "-n", "5"], stderr=subprocess.PIPE)
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    sent = time.monotonic()
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 1 and err == b"terrace generate: interrupted while the text was tokenised\n"
    assert time.monotonic() - sent < 5


def test_tokenising_shows_a_clock(words_model, tmp_path):
    text = tmp_path / "text"
    text.write_text("the king said nothing to the queen. " * 20_000)
    assert b"tokenising 1 MB" in drawn_on_a_terminal(["bash", "-c", f"{BINARY} generate -m {words_model} -f {text} || true"])


def partial_files(folder):
    return [path.name for path in folder.iterdir() if ".partial-" in path.name]


BIG = ["init", "--preset", "lm-default", "--dtype", "f32", "-o"]


def start_big(folder, **options):
    """An output that takes seconds, once its unfinished file is there."""
    process = subprocess.Popen([BINARY, *BIG, folder / "big.terrace"], stderr=subprocess.PIPE, **options)
    while not partial_files(folder):
        assert process.poll() is None
        time.sleep(0.01)
    return process


def test_a_hangup_ends_cleanly(tmp_path):
    process = start_big(tmp_path)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=60) == 1 and list(tmp_path.iterdir()) == []


def test_a_second_signal_leaves_no_unfinished_file(tmp_path):
    process = start_big(tmp_path)
    # Both come before it can react to one. Of a kind they would be one.
    for number in (signal.SIGSTOP, signal.SIGINT, signal.SIGTERM, signal.SIGCONT):
        process.send_signal(number)
    assert process.wait(timeout=60) in (-signal.SIGINT, -signal.SIGTERM)
    assert list(tmp_path.iterdir()) == []


def test_nohup_is_respected(models, tmp_path):
    process = start_big(tmp_path, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert process.poll() in (None, 0)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) in (0, 1)


def test_a_file_that_may_not_grow_is_an_error_of_writing(models, tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    done = start("generate", "-m", models["dense"], "-p", "a", "-n", 2, "--state-save", tmp_path / "state",
                 capture_output=True, preexec_fn=limit)
    assert done.returncode == 1 and b"File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_line_of_json_can_be_told_from_the_others(models):
    err = run("generate", "-m", models["dense"], "-p", "a", "-n", 3, "-t", 64, "--json").err
    lines = [line for line in err.splitlines() if line.startswith("{")]
    assert "warning" in err and len(lines) == 1 and json.loads(lines[0])["decode_tokens"] == 3
