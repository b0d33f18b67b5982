# SPDX-License-Identifier: Apache-2.0
"""terrace logits and terrace perplexity: the same numbers whatever way they are computed."""

import json

import numpy as np
import pytest
from conftest import DENSE, ROOT, patched, run


def logits(model, tokens, out, *arguments):
    run("logits", "-m", model, "--tokens", tokens, "--out", out, *arguments)
    return np.load(out)


@pytest.mark.parametrize("name", ["sparse", "dense"])
def test_every_mode_gives_the_same_bits(models, ids, tmp_path, name):
    full = logits(models[name], ids, tmp_path / "full.npy")
    assert full.dtype == np.float32 and full.shape == (40, 259) and np.isfinite(full).all()
    assert full.std() > 0
    for mode in ("step", "prefill:1", "prefill:17", "prefill:40", "prefill:1000"):
        for threads in (1, 2):
            other = logits(models[name], ids, tmp_path / "other.npy", "--mode", mode, "-t", threads)
            assert np.array_equal(full, other), (mode, threads)


def test_rows_depend_on_earlier_tokens_only(models, tmp_path):
    longer, shorter = tmp_path / "longer.txt", tmp_path / "shorter.txt"
    longer.write_text("5 6 7 8 9")
    shorter.write_text("5 6 7")
    assert np.array_equal(
        logits(models["sparse"], longer, tmp_path / "a.npy")[:3], logits(models["sparse"], shorter, tmp_path / "b.npy")
    )


@pytest.mark.parametrize(("kv_type", "share"), [("bf16", 0.05), ("q8", 0.05), ("q4", 0.2)])
def test_rounded_keys_and_values_stay_close(models, ids, tmp_path, kv_type, share):
    exact = logits(models["dense"], ids, tmp_path / "a.npy", "--mode", "step")
    rounded = logits(models["dense"], ids, tmp_path / "b.npy", "--mode", "step", "--kv-type", kv_type)
    assert not np.array_equal(exact, rounded)
    assert np.abs(exact - rounded).max() < share * np.abs(exact).max()


@pytest.mark.parametrize(("dtype", "kv_type"), [("f32", "f32"), ("bf16", "bf16"), ("q8", "q8"), ("q4", "q8")])
def test_keys_and_values_are_kept_no_more_exactly_than_the_weights(tmp_path, ids, dtype, kv_type):
    config, model = tmp_path / "config.json", tmp_path / "model.terrace"
    config.write_text(json.dumps(DENSE))
    run("init", "--config", config, "--dtype", dtype, "-o", model)
    by_default = logits(model, ids, tmp_path / "a.npy", "--mode", "step")
    assert np.array_equal(by_default, logits(model, ids, tmp_path / "b.npy", "--mode", "step", "--kv-type", kv_type))
    assert np.array_equal(by_default, logits(model, ids, tmp_path / "full.npy"))
    other = "f32" if kv_type != "f32" else "bf16"
    assert not np.array_equal(by_default, logits(model, ids, tmp_path / "c.npy", "--mode", "step", "--kv-type", other))


def test_an_encoder_input_without_an_encoder_is_a_usage_error(models, ids, tmp_path):
    run("logits", "-m", models["dense"], "--tokens", ids, "--encoder-tokens", ids, "-o", tmp_path / "x.npy", code=2)


def surprise(rows, targets):
    """-ln softmax(row)[target] in double."""
    rows = rows.astype(np.float64)
    top = rows.max(axis=1)
    return top + np.log(np.exp(rows - top[:, None]).sum(axis=1)) - rows[np.arange(len(targets)), targets]


@pytest.mark.parametrize("name", ["sparse", "dense"])
def test_perplexity_is_the_mean_surprise_of_the_logits(models, tmp_path, name):
    text = tmp_path / "text.txt"
    text.write_bytes(bytes(range(97, 123)) * 4)
    targets = np.array(run("tokenize", "-m", models[name], "-f", text).out.split(), dtype=int)
    shifted = tmp_path / "shifted.txt"
    shifted.write_text(" ".join(map(str, [0, *targets[:-1]])))
    expected = surprise(logits(models[name], shifted, tmp_path / "a.npy"), targets)

    figures = run("perplexity", "-m", models[name], "-f", text, "--json").json()
    assert figures["tokens"] == figures["bytes"] == 104
    assert figures["nats_per_token"] == pytest.approx(expected.mean(), rel=1e-9)
    assert figures["perplexity"] == pytest.approx(np.exp(expected.mean()), rel=1e-9)
    assert figures["bits_per_byte"] == pytest.approx(expected.mean() / np.log(2), rel=1e-9)
    error = expected.std(ddof=1) / np.sqrt(len(expected))
    assert figures["nats_per_token_stderr"] == pytest.approx(error, rel=1e-6)
    shown = run("perplexity", "-m", models[name], "-f", text).out.decode()
    assert f"{expected.mean():.4f} nats/token ± {error:.4f}, perplexity " in shown


def test_one_token_has_no_standard_error(models, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("a")
    assert run("perplexity", "-m", models["dense"], "-f", text, "--json").json()["nats_per_token_stderr"] is None
    assert "±" not in run("perplexity", "-m", models["dense"], "-f", text).out.decode()


def test_perplexity_of_nan_is_an_error_with_its_place(models, tmp_path):
    width = 64
    nan = width * np.float32("nan").tobytes()
    text = tmp_path / "text.txt"
    text.write_text("ab")
    everywhere = patched(models["dense"], tmp_path / "a", "decoder.logits.weight", nan)
    message = run("perplexity", "-m", everywhere, "-f", text, "--json", code=1).err
    assert "logits for token 0 of the text are not numbers: that of id 0 is" in message
    row = 3 + ord("a")  # read after the start token and token 0
    later = patched(models["dense"], tmp_path / "b", "decoder.embedding", nan, at=4 * width * row)
    assert "logits for token 1 of the text" in run("perplexity", "-m", later, "-f", text, code=1).err


@pytest.mark.parametrize("content, said", [(b"abc\xffdef", "offset 3;"), (b"\xff\xfea\0b\0", "offset 0 (it begins like UTF-16);")])
def test_text_that_is_no_utf8_is_warned_of_where_it_is_not_kept(models, tmp_path, content, said):
    text, config, model = tmp_path / "text.txt", tmp_path / "config.json", tmp_path / "model.terrace"
    text.write_bytes(content)
    config.write_text(json.dumps({**DENSE, "vocab_size": 2000}))
    run("init", "--config", config, "--tokenizer", f"sentencepiece:{ROOT}/tests/golden/tiny_bpe.model", "-o", model)
    for command in (["perplexity", "-m", model, "-f", text], ["tokenize", "-m", model, "-f", text]):
        message = run(*command).err
        assert message.count("warning") == 1 and "text.txt: expected UTF-8" in message and said in message
        assert run(command[0], "-m", models["dense"], "-f", text).err == ""


def test_perplexity_names_the_file_without_tokenizer(models, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("abc")
    message = run("perplexity", "-m", models["bare"], "-f", text, code=1).err
    assert "bare.terrace: expected a tokenizer" in message and "ids" not in message


def test_the_context_bounds_every_mode(models, ids, tmp_path):
    for i, mode in enumerate(("full", "step", "prefill:5")):
        out = tmp_path / f"{i}.npy"
        arguments = ["-m", models["dense"], "--tokens", ids, "-o", out, "--mode", mode]
        assert "context of 39 positions" in run("logits", *arguments, "-c", 39, code=1).err
        assert not out.exists()
        run("logits", *arguments, "-c", 40)


@pytest.mark.parametrize("context, stride", [(16, 16), (16, 4), (16, 1), (7, 3), (1, 1)])
def test_windows_score_every_token_once(models, tmp_path, context, stride):
    text = tmp_path / "text.txt"
    text.write_bytes(b"the quick brown fox jumps over the lazy dog")
    model = models["dense"]
    targets = np.array(run("tokenize", "-m", model, "-f", text).out.split(), dtype=int)
    total, scored = 0.0, 0
    while scored < len(targets):
        end = min(len(targets), context if scored == 0 else scored + stride)
        begin = max(0, end - context)
        window = tmp_path / "window.txt"
        window.write_text(" ".join(map(str, [0, *targets[begin : end - 1]])))
        total += surprise(logits(model, window, tmp_path / "w.npy"), targets[begin:end])[scored - begin :].sum()
        scored = end
    figures = run("perplexity", "-m", model, "-f", text, "-c", context, "--stride", stride, "--json").json()
    assert figures["tokens"] == len(targets)
    assert figures["nats_per_token"] == pytest.approx(total / len(targets), rel=1e-9)


def test_a_stride_beyond_the_context_is_a_usage_error(models, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("abc")
    run("perplexity", "-m", models["dense"], "-f", text, "-c", 8, "--stride", 9, code=2)
