# SPDX-License-Identifier: Apache-2.0
"""terrace generate: streaming, sampling, stopping, saving, interrupting."""

import json
import signal
import subprocess
import time

import pytest
from conftest import BINARY, drawn_on_a_terminal, run

GREEDY = ["--temp", 0]


def generate(model, *arguments, **options):
    return run("generate", "-m", model, *arguments, **options)


@pytest.mark.parametrize("name", ["sparse", "dense"])
def test_stdout_carries_the_text_and_nothing_else(models, name):
    quiet = generate(models[name], "-p", "hello", "-n", 20, *GREEDY)
    assert quiet.err == "" and quiet.out.decode()
    assert generate(models[name], "-p", "hello", "-n", 20, *GREEDY, "--stats").out == quiet.out


@pytest.mark.parametrize("name", ["sparse", "dense", "routed"])
def test_greedy_text_does_not_depend_on_threads_or_source(models, name, tmp_path):
    text = tmp_path / "prompt.txt"
    text.write_text("hello world")
    expected = generate(models[name], "-p", "hello world", "-n", 30, *GREEDY, "-t", 1, "--ids").out
    assert len(expected.split()) == 30
    assert generate(models[name], "-f", text, "-n", 30, *GREEDY, "-t", 2, "--ids").out == expected
    assert generate(models[name], "-f", "-", "-n", 30, *GREEDY, "-t", 3, "--ids", stdin=b"hello world").out == expected
    tokens = run("tokenize", "-m", models[name], "-f", text).out
    assert generate(models[name], "--tokens", "-", "-n", 30, *GREEDY, "--ids", stdin=tokens).out == expected


def test_a_seed_gives_the_same_text_again(models):
    def text(seed):
        return generate(models["dense"], "-p", "a", "-n", 40, "--temp", 1, "--seed", seed, "--ids").out

    assert text(1) == text(1)
    assert len({text(seed) for seed in range(5)}) == 5
    assert len({text(-1) for _ in range(3)}) == 3  # as in llama.cpp: a new seed each time


def test_stats_tell_the_share_of_the_tokens_that_ran_each_routed_block(models):
    command = [models["routed"], "-p", "hello", "-n", 40, *GREEDY, "--stats"]
    assert "routed blocks" in generate(*command).err
    shares = json.loads(generate(*command, "--json").err)["routed_shares"]
    assert len(shares) == 2 and all(0 <= share <= 1 for share in shares) and any(0 < share < 1 for share in shares)
    plain = generate(models["sparse"], "-p", "hello", "-n", 5, *GREEDY, "--stats", "--json")
    assert "routed_shares" not in json.loads(plain.err)


@pytest.mark.parametrize(
    ("name", "draft"),
    [
        ("dense", ["lookup"]),
        ("nested", ["lookup", "--draft-len", 3]),
        ("nested", [32]),
        ("nested", ["32,32,64,64", "--draft-len", 15]),
    ],
)
def test_a_draft_changes_neither_text_nor_state(models, name, draft, tmp_path):
    draft = ["--draft", *draft]
    for sampling in (GREEDY, ["--temp", 1, "--seed", 3, "--repeat-penalty", 1.2]):
        command = [models[name], "-p", "hello hello", "-n", 60, *sampling, "--ids", "--state-save"]
        plain = generate(*command, tmp_path / "plain").out
        report = generate(*command, tmp_path / "drafted", *draft, "--stats", "--json")
        assert report.out == plain
        assert (tmp_path / "drafted").read_bytes() == (tmp_path / "plain").read_bytes()
        speculation = json.loads(report.err)["speculation"]
        assert 0 <= speculation["accepted_tokens"] <= speculation["drafted_tokens"]
        assert speculation["passes"] + speculation["accepted_tokens"] >= 59
    stopped = generate(models[name], "-p", "hello", "-n", 60, *GREEDY, "--stop", "e", "--state-save", tmp_path / "a")
    again = generate(models[name], "-p", "hello", "-n", 60, *GREEDY, "--stop", "e", "--state-save", tmp_path / "b", *draft)
    assert again.out == stopped.out
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_attention_is_that_of_the_model_or_exact(models):
    plain = generate(models["dense"], "-p", "hello", "-n", 10, *GREEDY).out
    assert generate(models["dense"], "-p", "hello", "-n", 10, *GREEDY, "--attention", "exact").out == plain
    wrong = run("generate", "-m", models["dense"], "-p", "a", "-n", 3, "--attention", "lsh", code=1)
    assert "no LSH attention" in wrong.err


def test_statistics_count_the_slots_that_hashes_choose(tmp_path):
    """Two heads, chunks of 8 with one before: 16 slots of 16 + 16 floats and a link per head, or all before."""
    lsh = {"kind": "lsh", "chunk_len": 8, "n_chunks_before": 1, "n_hashes": 1, "n_buckets": 4, "mem_len": 128, "drop_len": 32}
    decoder = {"n_layers": 1, "position": {"kind": "sin_cos"}, "attention": [lsh], "ff": {"kind": "dense"}}
    config = {"family": "reformer_lm", "d_model": 32, "d_ff": 64, "n_heads": 2, "vocab_size": 259, "max_context": 256}
    path, model, prompt = tmp_path / "config.json", tmp_path / "lsh.terrace", tmp_path / "ids"
    prompt.write_text("7 " * 60)
    path.write_text(json.dumps({**config, "decoder": decoder}))
    run("init", "--config", path, "--dtype", "f32", "-o", model)

    def read(*more):
        result = generate(model, "--tokens", prompt, "-n", 8, *GREEDY, "--ids", "--json", *more)
        return json.loads(result.err)["bytes_per_token"]

    slot = 2 * ((16 + 16) * 4 + 4)
    assert read("--attention", "exact") - read() == (64 + 1 - 16) * slot


@pytest.mark.parametrize(
    "name, width, takes",
    [
        ("nested", 16, "untrained; it takes 32, 64, 128"),
        ("nested", 7, "impossible; it takes 32, 64, 128"),
        ("sparse", 16, "untrained; it takes 128 only"),
        ("dense", 30, "impossible; it takes 128 only"),
    ],
)
def test_widths_that_work_are_named(models, name, width, takes):
    message = run("generate", "-m", models[name], "-p", "a", "--width", width, code=2).err
    assert f"--width: block 0: a width of {width} units is {takes}" in message


def test_widths_the_model_has_not_are_no_draft(models):
    wrong = run("generate", "-m", models["dense"], "-p", "a", "-n", 3, "--draft", 7, code=2)
    assert "width of 7 units" in wrong.err


def test_top_k_1_is_greedy(models):
    greedy = generate(models["dense"], "-p", "a", "-n", 20, *GREEDY, "--ids").out
    assert generate(models["dense"], "-p", "a", "-n", 20, "--temp", 1.5, "--top-k", 1, "--ids").out == greedy


def test_stop_text_ends_the_output_before_it(models):
    text = generate(models["dense"], "-p", "a", "-n", 60, "--temp", 1, "--seed", 3).out.decode()
    stop = text[20:23]
    expected = text[: text.index(stop)]
    stopped = generate(models["dense"], "-p", "a", "-n", 60, "--temp", 1, "--seed", 3, "--stop", stop)
    assert stopped.out.decode() == expected
    several = generate(models["dense"], "-p", "a", "-n", 60, "--temp", 1, "--seed", 3, "--stop", "§", "--stop", stop)
    assert several.out.decode() == expected


def test_a_stop_text_is_taken_as_it_stands(models):
    """CLI11 has a syntax for lists of its own: [a,b] and {}."""
    command = [models["dense"], "-p", "a", "-n", 60, "--temp", 1, "--seed", 3]
    plain = generate(*command).out
    letter = next(c for c in plain.decode() if c.isascii() and c.isprintable() and c not in "[],{}%")
    for stop in (f"[{letter}]", f"[{letter},{letter}]", "{}", "%%", "[]"):
        assert generate(*command, "--stop", stop).out == plain


@pytest.mark.parametrize("name", ["sparse", "dense"])
@pytest.mark.parametrize("sampling", [GREEDY, ["--temp", 1, "--seed", 7, "--repeat-penalty", 1.2]])
def test_a_saved_state_continues_as_if_never_interrupted(models, name, sampling, tmp_path):
    state = tmp_path / "state"
    whole = generate(models[name], "-p", "hello", "-n", 30, *sampling, "--ids").out.split()
    first = generate(models[name], "-p", "hello", "-n", 11, *sampling, "--ids", "--state-save", state).out.split()
    second = generate(models[name], "-n", 19, *sampling, "--ids", "--state-load", state).out.split()
    assert first + second == whole


def test_a_loaded_state_says_how_keys_and_values_are_kept(models, tmp_path):
    state = tmp_path / "state"
    q4 = ["--kv-type", "q4"]
    whole = generate(models["dense"], "-p", "hello", "-n", 30, *GREEDY, "--ids", *q4).out.split()
    first = generate(models["dense"], "-p", "hello", "-n", 11, *GREEDY, "--ids", *q4, "--state-save", state).out.split()
    second = generate(models["dense"], "-n", 19, *GREEDY, "--ids", "--state-load", state).out.split()
    assert first + second == whole
    refused = generate(models["dense"], "-n", 1, "--kv-type", "f32", "--state-load", state, code=1)
    assert "keys and values in q4" in refused.err


def test_a_prompt_is_appended_to_a_loaded_state(models, tmp_path):
    state = tmp_path / "state"
    generate(models["dense"], "-p", "hello ", "-n", 0, "--state-save", state)
    expected = generate(models["dense"], "-p", "hello world", "-n", 9, *GREEDY, "--ids").out
    assert generate(models["dense"], "-p", "world", "-n", 9, *GREEDY, "--ids", "--state-load", state).out == expected


def test_a_state_of_another_model_is_refused(models, tmp_path):
    state = tmp_path / "state"
    generate(models["dense"], "-p", "hello", "-n", 1, "--state-save", state)
    assert "state" in generate(models["sparse"], "-n", 1, "--state-load", state, code=1).err
    content = state.read_bytes()
    for n in (0, 10, len(content) // 2, len(content) - 1):
        state.write_bytes(content[:n])
        generate(models["dense"], "-n", 1, "--state-load", state, code=1)


def test_statistics_name_every_figure(models):
    report = generate(models["sparse"], "-p", "hello", "-n", 20, *GREEDY, "--stats").err
    for figure in ("prompt", "decode", "ms/token", "MB read/token", "GB/s", "read bandwidth", "active weights", "state"):
        assert figure in report, figure
    figures = json.loads(generate(models["sparse"], "-p", "hello", "-n", 20, *GREEDY, "--stats", "--json").err)
    assert figures["prompt_tokens"] == 6 and figures["decode_tokens"] == 20
    assert 0 < figures["active_weight_share"] < 1
    assert figures["bytes_per_token"] > 0 and figures["read_bw_gb_per_s"] > 0 and figures["state_bytes"] > 0


def test_progress_is_drawn_on_a_terminal_only(models, tmp_path):
    long = tmp_path / "long.txt"
    long.write_text("x" * 200)
    arguments = [BINARY, "generate", "-m", models["sparse"], "-f", long, "-n", "1"]
    drawn = drawn_on_a_terminal(arguments)
    assert b"201/201 tokens" in drawn
    assert drawn.endswith(b"\r\x1b[K")
    assert run(*arguments[1:]).err == ""


def interrupt(arguments, signal_number=signal.SIGINT):
    """Starts terrace, waits for its first output, sends a signal; returns (status, stdout, stderr, seconds)."""
    process = subprocess.Popen(
        [BINARY, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    )
    first = process.stdout.read(1)
    process.send_signal(signal_number)
    start = time.monotonic()
    out, err = process.communicate(timeout=60)
    return process.returncode, first + out, err.decode(), time.monotonic() - start


@pytest.fixture(scope="module")
def slow_model(models, tmp_path_factory):
    """A dense model with a context long enough to be interrupted in."""
    from conftest import DENSE

    folder = tmp_path_factory.mktemp("slow")
    config = {**DENSE, "max_context": 1_000_000}
    config["decoder"] = {**DENSE["decoder"], "position": {"kind": "sin_cos"}}
    (folder / "config.json").write_text(json.dumps(config))
    path = folder / "slow.terrace"
    run("init", "--config", folder / "config.json", "--tokenizer", "bytes:3", "--dtype", "f32", "-o", path)
    return path


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_cleanly_and_keeps_text_and_state(slow_model, tmp_path, signal_number):
    state = tmp_path / "state"
    arguments = ["generate", "-m", slow_model, "-p", "hello", "-n", 500_000, *GREEDY, "--ids"]
    code, out, err, seconds = interrupt([*arguments, "--state-save", state], signal_number)
    assert code == 1 and "interrupted" in err and err.count("\n") == 1
    assert seconds < 5
    done = out.split()
    continued = run("generate", "-m", slow_model, "-n", 5, *GREEDY, "--ids", "--state-load", state).out.split()
    whole = run("generate", "-m", slow_model, "-p", "hello", "-n", len(done) + 5, *GREEDY, "--ids").out.split()
    assert done + continued == whole


def test_ctrl_c_stops_a_prefill(slow_model, tmp_path):
    long = tmp_path / "long.txt"
    long.write_text("x" * 300_000)
    process = subprocess.Popen([BINARY, "generate", "-m", slow_model, "-f", long], stderr=subprocess.PIPE)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1 and b"cancelled after" in err
