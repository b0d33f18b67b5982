# SPDX-License-Identifier: Apache-2.0
"""Bad files, bad ids, full disks: exit status 1, one line that says what and where, nothing half-written."""

import json
import struct

import numpy as np
import pytest
from conftest import DENSE, header, patched, run

FULL = "/dev/full"  # accepts no byte


@pytest.mark.parametrize("command", [["generate", "-p", "a"], ["inspect"], ["verify"], ["tokenize", "-p", "a"]])
def test_a_missing_model_is_named(command, tmp_path):
    missing = tmp_path / "missing.terrace"
    flag = ["-m"] if command[0] in ("generate", "tokenize") else []
    assert "missing.terrace" in run(command[0], *flag, missing, *command[1:], code=1).err


@pytest.mark.parametrize("content", [b"", b"GGUF" + bytes(100), b"\xff" * 64, b"\x02" + bytes(7) + b"{}"])
def test_a_file_that_is_no_model_is_refused(content, tmp_path):
    path = tmp_path / "broken.terrace"
    path.write_bytes(content)
    for arguments in (["generate", "-m", path, "-p", "a"], ["inspect", path], ["verify", path]):
        assert "broken.terrace" in run(*arguments, code=1).err


def test_a_directory_is_no_model(tmp_path):
    run("inspect", tmp_path, code=1)


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.5, 0.999])
def test_a_truncated_model_is_refused(models, tmp_path, share):
    content = models["dense"].read_bytes()
    path = tmp_path / "cut.terrace"
    path.write_bytes(content[: int(len(content) * share)])
    run("generate", "-m", path, "-p", "a", code=1)
    run("verify", path, code=1)


def test_verify_finds_one_flipped_bit_and_names_the_tensor(models, tmp_path):
    content = bytearray(models["dense"].read_bytes())
    content[-100] ^= 1
    path = tmp_path / "flipped.terrace"
    path.write_bytes(content)
    assert "checksum" in run("verify", path, code=1).err
    report = json.loads(run("verify", path, "--json", code=1).out)
    assert not report["ok"] and len(report["problems"]) == 1
    run("verify", models["dense"])


def test_verify_reports_nan_weights(models, tmp_path):
    path = patched(models["dense"], tmp_path / "nan", "decoder.logits.weight", np.float32("nan").tobytes())
    result = run("verify", path, code=1)
    problems = result.out.decode()
    assert "decoder.logits.weight" in problems and "NaN" in problems and problems.count("\n") == 2
    n = len([name for name in header(path)[0] if not name.startswith(("pad.", "__"))])
    assert f"1 of {n} tensors is damaged; the first problem: decoder.logits.weight" in result.err


def test_an_empty_prompt_is_an_error(models, tmp_path):
    run("generate", "-m", models["dense"], "-p", "", code=2)
    empty = tmp_path / "empty.txt"
    empty.write_bytes(b"")
    assert "empty" in run("generate", "-m", models["dense"], "-f", empty, code=1).err
    run("generate", "-m", models["dense"], "--tokens", empty, code=1)
    run("logits", "-m", models["dense"], "--tokens", empty, "-o", tmp_path / "x.npy", code=1)
    run("perplexity", "-m", models["dense"], "-f", empty, code=1)
    assert not (tmp_path / "x.npy").exists()


@pytest.mark.parametrize("bad", ["259", "-1", "2147483647"])
def test_an_unknown_id_is_named(models, tmp_path, bad):
    tokens = tmp_path / "tokens.txt"
    tokens.write_text(f"1 2 {bad} 3")
    message = run("generate", "-m", models["dense"], "--tokens", tokens, code=1).err
    assert f"tokens.txt: word 3: expected a token id from 0 to 258, found {bad}" in message
    for arguments in (["generate", "--tokens", tokens], ["logits", "--tokens", tokens, "-o", tmp_path / "x.npy"],
                      ["logits", "--tokens", tokens, "--mode", "step", "-o", tmp_path / "x.npy"]):
        assert bad in run(arguments[0], "-m", models["dense"], *arguments[1:], code=1).err
    assert not (tmp_path / "x.npy").exists()


@pytest.mark.parametrize("mode", ["full", "step", "prefill:2"])
def test_an_unknown_id_has_a_file_and_a_place_in_every_mode(models, tmp_path, mode):
    tokens = tmp_path / "tokens.txt"
    tokens.write_text("1 2 99999")
    out = tmp_path / "x.npy"
    message = run("logits", "-m", models["dense"], "--tokens", tokens, "--mode", mode, "-o", out, code=1).err
    assert "tokens.txt: word 3: expected a token id from 0 to 258, found 99999" in message
    assert not out.exists()
    tokens.write_text(" ".join(300 * ["1"]) + " -1")
    assert "tokens.txt: word 301" in run("moefy", models["dense"], tmp_path / "x", "--tokens", tokens, code=1).err


@pytest.mark.parametrize("bad", ["abc", "1.5", "99999999999", "0x10"])
def test_a_word_that_is_no_id_is_shown_with_its_place(models, tmp_path, bad):
    tokens = tmp_path / "tokens.txt"
    tokens.write_text(f"1 2\n{bad}\n")
    message = run("generate", "-m", models["dense"], "--tokens", tokens, code=1).err
    assert bad in message and "word 3" in message and "tokens.txt" in message


def test_a_missing_prompt_file_is_named(models):
    assert "no/such/file" in run("generate", "-m", models["dense"], "-f", "no/such/file", code=1).err


def test_a_full_context_is_an_error_and_keeps_the_text(models, tmp_path):
    long = tmp_path / "long.txt"
    long.write_text("x" * 1000)
    assert "256" in run("generate", "-m", models["dense"], "-f", long, code=1).err
    result = run("generate", "-m", models["dense"], "-p", "abc", "-c", 16, "-n", 100, "--temp", 0, "--ids", code=1)
    assert "16" in result.err
    assert len(result.out.split()) == 16 + 1 - 4  # start token and prompt take four; the last token need not be fed
    run("generate", "-m", models["dense"], "-p", "abc", "-c", 16, "--temp", 0)  # no -n: up to the end of the context


def test_a_model_without_tokenizer_takes_ids_only(models, ids):
    assert "tokenizer" in run("generate", "-m", models["bare"], "-p", "a", code=1).err
    assert len(run("generate", "-m", models["bare"], "--tokens", ids, "-n", 5).out.split()) == 5


def test_outputs_that_cannot_be_written(models, ids, tmp_path):
    for out in (tmp_path, tmp_path / "no/such/folder/x", FULL, "/proc/x"):
        run("logits", "-m", models["dense"], "--tokens", ids, "-o", out, code=1)
        run("init", "--preset", "lm-default", "--dtype", "q4", "-o", out, code=1)
        # Known before the first token, not after the last one.
        assert run("generate", "-m", models["dense"], "-p", "a", "-n", 2, "--state-save", out, code=1).out == b""


def test_a_full_disk_under_stdout_is_an_error(models):
    import subprocess

    from conftest import BINARY

    with open(FULL, "wb") as full:
        for arguments in (["generate", "-m", models["dense"], "-p", "a", "-n", "5"], ["--help"], ["--version"],
                          ["inspect", models["dense"]], ["tokenize", "-m", models["dense"], "-p", "a"]):
            done = subprocess.run([BINARY, *arguments], stdout=full, stderr=subprocess.PIPE, check=False)
            assert done.returncode == 1 and b"No space left" in done.stderr, arguments


def with_scales(model, path, tensor, pattern):
    """A copy of a q8 model in which the scales of a tensor begin with these 32-bit patterns."""
    content = bytearray(model.read_bytes())
    header_bytes = struct.unpack_from("<Q", content)[0]
    entries = json.loads(content[8 : 8 + header_bytes])
    begin = 8 + header_bytes + entries[f"{tensor}.scale"]["data_offsets"][0]
    content[begin : begin + 4 * len(pattern)] = np.array(pattern, "<u4").tobytes()
    path.write_bytes(content)


@pytest.fixture(scope="module")
def q8(models, tmp_path_factory):
    path = tmp_path_factory.mktemp("q8") / "q8.terrace"
    run("quantize", models["dense"], path, "--dtype", "q8")
    return path


@pytest.mark.parametrize("pattern", [1, 0x807FFFFF])
def test_scales_that_are_denormal_are_found(q8, tmp_path, pattern):
    tensor = "decoder.blocks.1.ff.w1.weight"
    broken = tmp_path / "broken.terrace"
    with_scales(q8, broken, tensor, [0x3F800000, pattern])
    problem = "1 scales that are denormal numbers, the first at element 1"
    assert f"{tensor}.scale: {problem}" in run("verify", broken, code=1).out.decode()
    assert problem in run("generate", "-m", broken, "-p", "abc", "-n", 4, code=1).err


@pytest.mark.parametrize("pattern", [0x7FC00000, 0xFFC00001, 0x7F800000, 0xFF800000])
def test_scales_that_are_no_numbers_are_found(q8, tmp_path, pattern):
    """Every subcommand that reads weights names the tensor."""
    tensor = "decoder.blocks.1.ff.w1.weight"
    broken = tmp_path / "broken.terrace"
    with_scales(q8, broken, tensor, [0x3F800000, pattern])
    out = run("verify", broken, code=1).out.decode()
    assert f"{tensor}.scale: 1 values that are NaN or infinite, the first at element 1" in out
    target = tmp_path / "target.terrace"
    assert tensor in run("quantize", broken, target, "--dtype", "q4", code=1).err
    assert not target.exists()
    assert f"{tensor}.scale" in run("generate", "-m", broken, "-p", "abc", "-n", 4, code=1).err


def test_scales_of_minus_zero_are_zero(q8, ids, tmp_path):
    results = []
    for zero in (0, 0x80000000):
        path, out = tmp_path / "zero.terrace", tmp_path / "logits.npy"
        with_scales(q8, path, "decoder.blocks.0.ff.w1.weight", 5 * [zero])
        run("logits", "-m", path, "--tokens", ids, "-o", out)
        results.append(out.read_bytes())
    assert results[0] == results[1]


def test_scales_of_another_length_are_refused(q8, tmp_path):
    content = q8.read_bytes()
    header_bytes = struct.unpack_from("<Q", content)[0]
    text = content[8 : 8 + header_bytes]
    entries = json.loads(text)
    name = "decoder.logits.weight.scale"
    shape = entries[name]["shape"][0]
    wrong = text.replace(f'"{name}":{{"dtype":"F32","shape":[{shape}]'.encode(),
                         f'"{name}":{{"dtype":"BF16","shape":[{2 * shape}]'.encode())
    assert wrong != text
    wrong = wrong.rstrip() + b" " * (header_bytes - len(wrong.rstrip()))  # the padding takes up the difference
    assert len(wrong) == header_bytes
    path = tmp_path / "wrong.terrace"
    path.write_bytes(content[:8] + wrong + content[8 + header_bytes :])
    for command in (["inspect", path], ["generate", "-m", path, "-p", "a"], ["quantize", path, path, "--dtype", "q4"]):
        message = run(*command, code=1).err
        assert name in message and f"F32 [{shape}]" in message and f"BF16 [{2 * shape}]" in message


def test_a_model_larger_than_the_disk_is_refused_at_once(tmp_path):
    config = tmp_path / "config.json"
    layers = {**DENSE["decoder"], "position": {"kind": "sin_cos"}, "n_layers": 1000}
    config.write_text(json.dumps({**DENSE, "d_model": 65536, "d_ff": 262144, "decoder": layers}))  # 200 TB in f32
    message = run("init", "--config", config, "--dtype", "f32", "-o", tmp_path / "x.terrace", code=1).err
    assert "cannot reserve" in message and "x.terrace" in message and "bytes" in message
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]


def test_more_threads_than_cores_work_and_are_warned_of_once(models, ids, tmp_path):
    plain = run("generate", "-m", models["sparse"], "--tokens", ids, "-n", 8, "--temp", 0, "-t", 1, "--ids")
    assert plain.err == ""
    many = run("generate", "-m", models["sparse"], "--tokens", ids, "-n", 8, "--temp", 0, "-t", 64, "--ids")
    assert many.out == plain.out
    assert many.err.count("\n") == 1 and "warning: 64 threads on " in many.err
    assert "warning: 64 threads" in run("quantize", models["sparse"], tmp_path / "a", "--dtype", "q8", "-t", 64, "--json").err


def test_scalar_code_works_and_is_warned_of_once(models, ids, tmp_path):
    """What a CPU without AVX2 does; TERRACE_ISA=scalar makes any CPU one."""
    logits = {}
    for isa in ("scalar", ""):
        out = tmp_path / f"{isa}.npy"
        result = run("logits", "-m", models["sparse"], "--tokens", ids, "-o", out, env={"TERRACE_ISA": isa})
        assert (result.err.count("warning") == 1 and "scalar" in result.err) if isa else result.err == ""
        logits[isa] = np.load(out)
    assert np.abs(logits["scalar"] - logits[""]).max() < 1e-3


@pytest.mark.parametrize("name", ["no-such-isa", "neon"])
def test_an_instruction_set_that_cannot_run_is_refused(models, name):
    message = run("generate", "-m", models["dense"], "-p", "a", "-n", 1, env={"TERRACE_ISA": name}, code=1).err
    assert name in message and "TERRACE_ISA" in message


def test_a_configuration_that_fits_no_model_is_refused(tmp_path):
    for change in ({"d_model": 63}, {"n_heads": 0}, {"family": "rnn"}, {"unknown_key": 1}):
        config = tmp_path / "config.json"
        config.write_text(json.dumps({**DENSE, **change}))
        message = run("init", "--config", config, "--dtype", "f32", "-o", tmp_path / "x.terrace", code=1).err
        assert next(iter(change)) in message and "config.json" in message
        assert not (tmp_path / "x.terrace").exists()


def test_interrupted_outputs_leave_no_temporary_files(models, ids, tmp_path):
    tokens = tmp_path / "tokens.txt"
    tokens.write_text("1 2 999")
    run("logits", "-m", models["dense"], "--tokens", tokens, "-o", tmp_path / "x.npy", code=1)
    assert [p.name for p in tmp_path.iterdir() if p != ids] == ["tokens.txt"]
