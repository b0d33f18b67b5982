# SPDX-License-Identifier: Apache-2.0
"""Help, version and command lines that cannot be meant (exit status 2)."""

import re

import pytest
from conftest import run

COMMANDS = ["generate", "logits", "perplexity", "bench", "plan", "init", "inspect", "verify", "quantize", "moefy", "tokenize", "detokenize"]


def test_help_names_every_subcommand():
    text = run("--help").out.decode()
    for command in COMMANDS:
        assert command in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_subcommand_has_help(command):
    result = run(command, "--help")
    assert f"terrace {command}" in result.out.decode()
    assert result.err == ""


def test_version_lists_instruction_sets():
    assert "scalar" in run("--version").out.decode()


def number_flags():
    """Every flag with an N for its value in the help of its subcommand."""
    for command in COMMANDS:
        for line in run(command, "--help").out.decode().splitlines():
            if flag := re.match(r"  (?:-\w, *)?(--[\w-]+)[, \w-]* N\b", line):
                yield command, flag[1]


def test_no_number_wraps_or_saturates():
    """-2 is no number of anything; 2^64 and 2^64-1 do not become the largest value."""
    flags = list(number_flags())
    assert {("bench", "--n-depth"), ("bench", "--n-gen"), ("moefy", "--seed"), ("generate", "--width")} <= set(flags)
    assert len(flags) > 20
    required = {"init": ["--preset", "lm-default", "-o", "x"], "quantize": ["x", "y", "--dtype", "q8"], "moefy": ["x", "y"],
                "bench": ["-m", "x"], "plan": ["--preset", "lm-default"], "perplexity": ["-m", "x", "-f", "y"], "generate": ["-m", "x", "-p", "a"],
                "logits": ["-m", "x", "--tokens", "y", "-o", "z"]}  # fmt: skip
    for command, flag in flags:
        for value in ("-2", "18446744073709551615", "18446744073709551616", "1e3"):
            message = run(command, *required[command], flag, value, code=2).err
            assert flag in message and value in message, message


@pytest.mark.parametrize(
    "arguments, said",
    [
        ([], "subcommand"),
        (["--frob"], "--frob"),
        (["no-such-command"], "no-such-command"),
        (["generate"], "--model"),
        (["generate", "-m", "x", "--no-such-flag"], "--no-such-flag"),
        (["generate", "-m", "x"], "-p"),
        (["generate", "-m", "x", "-p", "a", "-f", "b"], "-"),
        (["generate", "-m", "x", "-p", "a", "-n", "many"], "many"),
        (["generate", "-m", "x", "-p", "a", "-t", "0"], "--threads"),
        (["generate", "-m", "x", "-p", "a", "-t", "-1"], "--threads"),
        (["generate", "-m", "x", "-p", "a", "-n", "010"], "--predict: expected a decimal number"),
        (["generate", "-m", "x", "-p", "a", "-n", "0x10"], "--predict"),
        (["generate", "-m", "x", "-p", "a", "-n", "9223372036854775808"], "--predict"),
        (["generate", "-m", "x", "-p", "a", "-n", "99999999999999999999999"], "--predict"),
        (["generate", "-m", "x", "-p", "a", "--seed", "9223372036854775808"], "--seed"),
        (["generate", "-m", "x", "-p", "a", "-c", "4294967296"], "--ctx-size"),
        (["generate", "-m", "x", "-p", "a", "--width", "0"], "--width"),
        (["generate", "-m", "x", "-p", "a", "--width", "64,010"], "--width"),
        (["generate", "-m", "x", "-p", "a", "--temp", "1e-30"], "--temp: expected 0 or a number"),
        (["generate", "-m", "x", "-p", "a", "--temp", "-1"], "--temp"),
        (["generate", "-m", "x", "-p", "a", "--samplers", "top_k,top_k"], "--samplers"),
        (["generate", "-m", "x", "-p", "a", "--stop", "b", "--ids"], "--stop"),
        (["generate", "-m", "x", "-p", "a", "--top-p", "1.5"], "--top-p"),
        (["generate", "-m", "x", "-p", "a", "--top-p", "nan"], "--top-p"),
        (["generate", "-m", "x", "-p", "a", "--kv-type", "q3"], "--kv-type"),
        (["generate", "-m", "x", "-p", "a", "--seed", "-2"], "--seed"),
        (["generate", "-m", "x", "-p", "a", "--draft", "y"], "expected 'lookup', or a width"),
        (["generate", "-m", "x", "-p", "a", "--draft", "64,0"], "expected 'lookup', or a width"),
        (["generate", "-m", "x", "-p", "a", "--draft-len", "4"], "needs --draft"),
        (["generate", "-m", "x", "-p", "a", "--draft", "lookup", "--draft-len", "16"], "from 1 to 15"),
        (["generate", "-m", "x", "-p", "a", "--attention", "none"], "--attention"),
        (["init", "--preset", "lm-default", "--seed", "-1", "-o", "x"], "--seed"),
        (["generate", "-m"], "--model"),
        (["logits", "-m", "x", "--tokens", "y"], "--out"),
        (["logits", "-m", "x", "--tokens", "y", "-o", "z", "--mode", "prefill:"], "--mode"),
        (["logits", "-m", "x", "--tokens", "y", "-o", "z", "--mode", "prefill:0"], "--mode"),
        (["logits", "-m", "x", "--tokens", "y", "-o", "z", "--mode", "sideways"], "--mode"),
        (["perplexity", "-m", "x", "-f", "y", "--stride", "0"], "--stride"),
        (["bench", "-m", "x", "-d", "0,-1"], "--n-depth"),
        (["bench"], "--preset"),
        (["bench", "-m", "x", "--preset", "lm-default"], "-"),
        (["bench", "--preset", "no-such-preset"], "no-such-preset"),
        (["bench", "--preset", "lm-default", "--dtype", "f64"], "f64"),
        (["bench", "--preset", "lm-default", "-o", "xml"], "xml"),
        (["plan"], "--preset"),
        (["plan", "-m", "x", "--preset", "lm-default"], "-"),
        (["plan", "-m", "x", "--dtype", "q8"], "--dtype"),
        (["plan", "-m", "x", "--dense"], "--dense: only a --preset"),
        (["plan", "--preset", "no-such-preset"], "no-such-preset"),
        (["plan", "--preset", "llama-0.8B"], "--preset: preset 'llama-0.8B' has no sparse variant"),
        (["plan", "--preset", "lm-default", "--dtype", "q8,f64"], "f64"),
        (["plan", "--preset", "lm-default", "--kv-type", "q3"], "--kv-type"),
        (["plan", "--preset", "lm-default", "-c", "2049"], "-c: expected at most 2048"),
        (["plan", "--preset", "lm-default", "-c", "16,0"], "--context"),
        (["plan", "--preset", "lm-default", "-t", "0"], "--threads"),
        (["plan", "--preset", "lm-default", "--width", "100"], "--width: block 0: a width of 100 units"),
        (["plan", "--preset", "lm-default", "--width", "4608,4608"], "--width: one width or one per block (6)"),
        (["plan", "--preset", "lm-default", "--document", "8"], "--document: expected a model with an encoder"),
        (["plan", "--preset", "lm-default", "--budget", "0"], "--budget"),
        (["plan", "--preset", "lm-default", "--budget", "fast"], "fast"),
        (["init", "--dtype", "f32", "-o", "x"], "--preset"),
        (["init", "--preset", "no-such-preset", "-o", "x"], "no-such-preset"),
        (["init", "--preset", "lm-default", "--dtype", "f99", "-o", "x"], "f99"),
        (["inspect"], "file"),
        (["verify"], "file"),
        (["quantize", "in"], "out"),
        (["tokenize", "-m", "x"], "-p"),
    ],
)
def test_usage_errors_exit_with_2_and_one_line(arguments, said):
    assert said in run(*arguments, code=2).err


@pytest.mark.parametrize(
    "arguments",
    [
        *(["generate", "-m", "x", "-p", "a", flag, ""]
          for flag in ("--state-save", "--state-load", "--draft", "--stop", "--seed", "--kv-type", "--width")),
        ["generate", "-m", "", "-p", "a"],
        ["generate", "-m", "x", "-f", ""],
        ["generate", "-m", "x", "--tokens", ""],
        ["generate", "-m", "x", "-p", "a", "--state-save=", "-n", "3"],
        ["moefy", "x", "y", "-f", ""],
        ["logits", "-m", "x", "--tokens", "y", "-o", ""],
        ["inspect", ""],
        ["quantize", "x", ""],
    ],
)
def test_an_empty_value_is_no_value(arguments):
    """A shell variable that is not set must not switch a flag off in silence."""
    assert "empty" in run(*arguments, code=2).err


def test_arguments_that_the_model_cannot_have_are_usage_errors(models):
    for flag, value in (("-c", 4294967295), ("--width", 99999), ("--width", "128,64,128"), ("--draft", 7)):
        message = run("generate", "-m", models["dense"], "-p", "a", "-n", 1, flag, value, code=2).err
        assert f"{flag}: " in message
    assert "--stop" in run("generate", "-m", models["bare"], "--tokens", "x", "--stop", "b", code=2).err


def test_an_output_is_no_input(models, tmp_path):
    """Whatever name it goes by; a state may be continued in its own file."""
    model, prompt, link, state = (tmp_path / name for name in ("model", "prompt", "link", "state"))
    prompt.write_text("hello")
    before = models["dense"].read_bytes()
    model.write_bytes(before)
    link.symlink_to(model)
    for flag, out in (("-m", model), ("-m", link), ("-f", prompt), ("-f", f"{tmp_path}/./prompt")):
        message = run("generate", "-m", model, "-f", prompt, "-n", 1, "--state-save", out, code=2).err
        assert "--state-save" in message and f"that of {flag}" in message
    assert model.read_bytes() == before and prompt.read_text() == "hello"
    run("generate", "-m", model, "-f", prompt, "-n", 1, "--state-save", state)
    run("generate", "-m", model, "-n", 1, "--state-load", state, "--state-save", state)
