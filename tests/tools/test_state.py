# SPDX-License-Identifier: Apache-2.0
"""terrace generate --state-save: the state holds what was printed, whatever ended the text."""

import json
import os
import signal
import stat
import subprocess
import time

import numpy as np
import pytest
from conftest import BINARY, DENSE, run

GREEDY = ["--temp", 0]
SAMPLED = ["--temp", 1, "--seed", 3]


def generate(model, *arguments, **options):
    return run("generate", "-m", model, *arguments, **options)


def words(result):
    return result.out.decode().split()


@pytest.mark.parametrize("name", ["sparse", "dense"])
@pytest.mark.parametrize("draft", [[], ["--draft", "lookup"]])
def test_a_full_context_loses_no_token(models, name, draft, tmp_path):
    """Start token and prompt take 4 positions of 32; a 29th token could be drawn but not kept."""
    state, command = tmp_path / "state", [models[name], *GREEDY, "--ids", *draft]
    whole = words(generate(*command, "-p", "abc", "-n", 40))
    for n, code in ((28, 0), (29, 1), (-1, 0)):
        first = generate(*command, "-p", "abc", "-n", n, "-c", 32, "--state-save", state, code=code)
        assert len(words(first)) == 28
        assert code == 0 or "-c makes it larger" in first.err
        second = generate(*command, "-c", 64, "-n", 12, "--state-load", state)
        assert words(first) + words(second) == whole
    assert len(words(generate(*command, "-p", "abc", "-n", 29, "-c", 32))) == 29  # nothing is to be kept


def test_a_stop_text_is_not_in_the_state(models, tmp_path):
    """The token that it cuts is not, either: of the byte tokenizer's there are none."""
    state, command = tmp_path / "state", [models["dense"], *SAMPLED]
    whole = generate(*command, "-p", "a", "-n", 60).out.decode()
    stop = whole[20:24]
    first = generate(*command, "-p", "a", "-n", 60, "--stop", stop, "--state-save", state).out.decode()
    assert first == whole[: whole.index(stop)]
    ids = words(generate(*command, "-p", "a", "-n", 60, "--ids"))
    second = words(generate(*command, "-n", 20, "--ids", "--state-load", state))
    n = next(n for n in range(61) if ids[n : n + 20] == second)
    assert generate(*command, "-p", "a", "-n", n).out.decode() == first


def test_a_stop_text_that_no_text_has_changes_no_state(models, tmp_path):
    command = [models["sparse"], "-p", "a", "-n", 20, *SAMPLED, "--state-save"]
    generate(*command, tmp_path / "a")
    generate(*command, tmp_path / "b", "--stop", "no such text")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_state_survives_the_reader_of_the_text(models, tmp_path):
    """A pipe that is closed, a full disk under stdout, no stdout."""
    state = tmp_path / "state"
    command = [str(a) for a in (BINARY, "generate", "-m", models["dense"], "-p", "abc", "-n", 20, *GREEDY, "--state-save", state)]
    whole = words(generate(models["dense"], "-p", "abc", "-n", 5, *GREEDY, "--ids"))
    reader, closed = os.pipe()
    os.close(reader)
    with open("/dev/full", "wb") as full:
        for stdout, before in ((closed, None), (full, None), (None, lambda: os.close(1))):
            state.unlink(missing_ok=True)
            done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, check=False, preexec_fn=before)
            assert done.returncode == 1 and b"standard output: cannot write" in done.stderr
            assert b"state has the state up to there" in done.stderr
            assert words(generate(models["dense"], "-n", 5, *GREEDY, "--ids", "--state-load", state)) == whole
    os.close(closed)


def test_logits_that_are_no_numbers_lose_no_state(models, tmp_path):
    """The row that the logits take for token 7 is NaN once a token that leads there is read: here, at once."""
    content = bytearray(models["dense"].read_bytes())
    n = int.from_bytes(content[:8], "little")
    begin, end = json.loads(content[8 : 8 + n])["decoder.logits.weight"]["data_offsets"]
    content[8 + n + begin : 8 + n + end] = np.full((end - begin) // 4, np.nan, np.float32).tobytes()
    broken, state = tmp_path / "broken.terrace", tmp_path / "state"
    broken.write_bytes(content)
    message = generate(broken, "-p", "abc", "-n", 3, *GREEDY, "--state-save", state, code=1).err
    assert "NaN" in message and "has the state up to there" in message and state.exists()


def test_a_prompt_that_cannot_be_read_leaves_the_state_alone(models, tmp_path):
    state, tokens = tmp_path / "state", tmp_path / "tokens"
    generate(models["dense"], "-p", "abc", "-n", 2, "--state-save", state)
    before = state.read_bytes()
    tokens.write_text("1 " * 300)
    generate(models["dense"], "--tokens", tokens, "--state-load", state, "--state-save", state, code=1)
    generate(models["dense"], "--tokens", tokens, "--state-save", tmp_path / "none", code=1)
    assert state.read_bytes() == before and not (tmp_path / "none").exists()


def test_ctrl_c_in_a_prompt_keeps_what_was_read(tmp_path):
    config = {**DENSE, "max_context": 1_000_000, "decoder": {**DENSE["decoder"], "position": {"kind": "sin_cos"}}}
    model, long, state = tmp_path / "slow.terrace", tmp_path / "long", tmp_path / "state"
    (tmp_path / "config.json").write_text(json.dumps(config))
    run("init", "--config", tmp_path / "config.json", "--tokenizer", "bytes:3", "--dtype", "f32", "-o", model)
    long.write_text("x" * 300_000)
    process = subprocess.Popen([BINARY, "generate", "-m", model, "-f", long, "--state-save", state], stderr=subprocess.PIPE)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 1 and "cancelled after" in err and "has the state up to there" in err
    done = int(err.split("cancelled after ")[1].split()[0])
    long.write_text("x" * (done - 1))  # the start token is one of them
    expected = words(generate(model, "-f", long, "-n", 5, *GREEDY, "--ids"))
    assert words(generate(model, "-n", 5, *GREEDY, "--ids", "--state-load", state)) == expected


def test_widths_that_are_asked_for_replace_those_of_the_state(models, tmp_path):
    state, command = tmp_path / "state", [models["nested"], *GREEDY, "--ids"]
    generate(*command, "-p", "abc", "-n", 5, "--width", 32, "--state-save", state)

    def go_on(*more):
        result = generate(*command, "-n", 20, "--state-load", state, "--json", *more)
        return words(result), json.loads(result.err)["active_weight_share"]

    kept, wide = go_on(), go_on("--width", 128)
    assert kept == go_on("--width", 32) and wide[1] > kept[1]
    share = json.loads(generate(*command, "-p", "abc", "-n", 5, "--width", 32, "--json").err)["active_weight_share"]
    assert kept[1] == share
    assert wide[0] != kept[0]


def test_a_file_that_is_no_state_is_called_so(models):
    message = generate(models["dense"], "-n", 1, "--state-load", models["dense"], code=1).err
    assert "dense.terrace: no state file" in message


def test_a_state_that_is_replaced_keeps_its_mode(models, tmp_path):
    state = tmp_path / "state"
    state.write_bytes(b"")
    state.chmod(0o600)
    generate(models["dense"], "-p", "abc", "-n", 2, "--state-save", state)
    assert stat.S_IMODE(state.stat().st_mode) == 0o600 and state.stat().st_size > 0


def test_a_token_that_a_stop_text_cuts_is_not_in_the_state(words_model, tmp_path):
    """Every place of the text is a place to stop: what continues the state begins where its last whole token ends."""
    state, command = tmp_path / "state", [words_model, *SAMPLED]
    ids = words(generate(*command, "-p", "hello", "-n", 24, "--ids"))
    texts = [generate(*command, "-p", "hello", "-n", n).out.decode() for n in range(13)]
    whole = generate(*command, "-p", "hello", "-n", 24).out.decode()
    cuts = 0
    for at in range(1, len(texts[12])):
        stop = whole[at : at + 8]
        if whole.index(stop) != at:
            continue
        shown = generate(*command, "-p", "hello", "-n", 24, "--stop", stop, "--state-save", state).out.decode()
        assert shown == whole[:at]
        n = max(n for n in range(13) if shown.startswith(texts[n]))
        cuts += texts[n] != shown
        continued = words(generate(*command, "-n", 6, "--ids", "--state-load", state))
        assert continued == ids[n : n + 6]
    assert cuts > 0
