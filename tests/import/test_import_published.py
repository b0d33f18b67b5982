# SPDX-License-Identifier: Apache-2.0
"""The published layout: a triple of the c4-medium wiring at small width, in every form a user may have it; LSH keys from
the state; and a checkpoint that Trax itself trained."""

import json
import os
import pathlib
import subprocess

import import_trax
import numpy as np
import pytest
from comparison import check_close, check_model, import_triple, oracle_of, run_logits
from model_cases import HASH
from oracle.attention import favor_matrix
from oracle.checkpoints import load_checkpoint, save_checkpoint
from oracle.manifest import Cfg
from oracle.prng import prng_key, prng_normal, prng_split
from oracle.subword import SubwordTextEncoder
from terrace_import.hashed_attention import bucket_factors
from terrace_import.threefry import normal, split
from trax_files import C4_MEDIUM, small, weights_of, write_old_pickle, write_triple
from train.container import read_container

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"
# Trax's own trained test checkpoint, where the machine has it.
COPY = (
    pathlib.Path(__file__).resolve().parents[3] / "shared/checkpoints/transformerlm_copy.pkl.gz"
)  # SKIP_WITHOUT_SHARED


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    """The subword vocabulary of the golden vectors, as a file."""
    path = tmp_path_factory.mktemp("vocabulary") / "small.subword"
    path.write_text(json.loads((GOLDEN / "subword.json").read_text())["vocabulary"], encoding="utf-8")
    return path


def test_all_forms_of_a_checkpoint_give_the_same_file(tmp_path):
    flat = [np.asarray((w.view("<u4") & 0xFFFF0000).view("<f4")) for w in weights_of(C4_MEDIUM)]  # exact in bfloat16
    config, pkl, weights = write_triple(tmp_path / "new", C4_MEDIUM, flat)
    beside = tmp_path / "beside"
    write_triple(beside, C4_MEDIUM, flat)[2].rename(beside / "model.pkl.gz.npy")  # an older name of the weights
    forms = {
        "pkl": ["--config", config, "--weights", pkl],
        "npy": ["--config", config, "--weights", weights],
        "bfloat16": ["--config", config, "--weights", write_triple(tmp_path / "b", C4_MEDIUM, flat, bfloat16=True)[2]],
        "fortran": [
            "--config",
            config,
            "--weights",
            write_triple(tmp_path / "f", C4_MEDIUM, flat, fortran={0, 15, 16})[1],
        ],
        "stored": ["--config", config, "--weights", write_triple(tmp_path / "s", C4_MEDIUM, flat, level=0)[2]],
        "old": ["--config", config, "--weights", write_old_pickle(tmp_path / "old.pkl.gz", flat)],
        "beside": ["--config", config, "--weights", beside / "model.pkl.gz"],
    }
    contents = set()
    for name, flags in forms.items():
        out = tmp_path / f"{name}.model"
        assert import_trax.main([*map(str, flags), "--out", str(out)]) == 0
        contents.add(out.read_bytes())
    assert len(contents) == 1


def test_the_small_triple_decodes_like_the_oracle(tmp_path, terrace, vocabulary):
    flat = weights_of(C4_MEDIUM, seed=2, scale=0.15)
    model = import_triple(tmp_path, C4_MEDIUM, flat, "--vocab", str(vocabulary), "--reserved-ids", "100")
    assert subprocess.run([terrace, "verify", model], capture_output=True).returncode == 0
    document = np.random.default_rng(3).integers(100, 200, size=40)
    oracle = oracle_of(C4_MEDIUM, flat)
    oracle.start(document)
    ids, logits = [0], []
    for _ in range(24):
        logits.append(oracle.feed(ids[-1:])[0])
        ids.append(int(np.argmax(logits[-1])))
    found = run_logits(terrace, model, tmp_path, ids[:-1], np.concatenate([document, np.zeros(9, int)]), "step")
    assert np.max(np.abs(found - np.array(logits))) <= 2e-5 * np.max(np.abs(logits))

    encoder = SubwordTextEncoder(vocabulary.read_text(encoding="utf-8"))
    (tmp_path / "ids").write_text(" ".join(map(str, document)))
    command = [terrace, "generate", "-m", model, "--tokens", tmp_path / "ids", "-n", "24", "--temp", "0"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    stop = ids.index(1) if 1 in ids else len(ids)
    assert done.stdout.rstrip("\n") == encoder.decode(ids[1:stop], 100).rstrip("\n")


def test_configuration_and_tokenizer_are_in_the_file(tmp_path, vocabulary):
    flags = ["--vocab", str(vocabulary), "--reserved-ids", "100", "--name", "small", "--license", "Apache-2.0"]
    model = import_triple(tmp_path, C4_MEDIUM, weights_of(C4_MEDIUM), *flags)
    tensors, metadata = read_container(model)
    assert json.loads(metadata["tokenizer"]) == {"kind": "subword", "n_reserved_ids": 100}
    assert tensors["tokenizer.data"].tobytes() == vocabulary.read_bytes()
    assert (metadata["name"], metadata["license"]) == ("small", "Apache-2.0")
    config = json.loads(metadata["config"])
    assert config["encoder"] == {
        "n_layers": 3,
        "attention": [{"kind": "dot_product"}],
        "ff": {"kind": "sparse", "block_size": 16, "d_lowrank": 8, "sru": {"n_layers": 1, "width": 32}},
        "vocab_size": 300,
        "position": {"kind": "low_rank", "max_len": 512, "rank": 8},
        "center_norm": True,
        "two_swaps": True,
        "reversible": True,
    }
    assert config["decoder"]["attention"] == [
        {
            "kind": "multiplicative_conv",
            "n_modules": 4,
            "kernel_size": 3,
            "share_qk": False,
            "v_concat": "none",
            "output": "none",
        }
    ]
    assert config["decoder"]["n_attention"] == 2 and config["shared_embedding"] is True
    assert config["logits"] == {"kind": "mult", "n_modules": 4}
    assert config["tokens"] == {"start": 0, "end": 1, "pad": 0}


def test_shapes_tell_what_the_gin_file_leaves_out(tmp_path):
    """The same file as with the complete gin file, from one that holds only what shapes cannot tell."""
    flat = weights_of(C4_MEDIUM)
    complete = import_triple(tmp_path / "a", C4_MEDIUM, flat)
    left_out = (
        "vocab_size",
        "d_model",
        "d_ff",
        "sparsity",
        "kernel_size",
        "sru",
        "max_len",
        "center_layernorm",
        "n_decoder_attention_layers",
        "reversible_encoder",
        "forget",
        "half_before",
        "double_after",
        "output_vocab",
    )
    partial = import_triple(tmp_path / "b", C4_MEDIUM, flat, "--n-decoder-attention-layers", "2", leave_out=left_out)
    assert partial.read_bytes() == complete.read_bytes()


@pytest.mark.parametrize("dtype", ["bf16", "q8"])
def test_narrow_types_load_and_stay_near(tmp_path, terrace, dtype):
    cfg = small("lm", attn="causal", d_model=64, d_ff=128)
    flat = weights_of(cfg)
    tokens = np.arange(1, 12)
    exact = run_logits(terrace, import_triple(tmp_path / "a", cfg, flat), tmp_path, tokens)
    narrow = run_logits(terrace, import_triple(tmp_path / "b", cfg, flat, "--dtype", dtype), tmp_path, tokens)
    assert 0 < np.max(np.abs(narrow - exact)) < 0.1 * np.max(np.abs(exact))


def test_generator_of_jax():
    for seed in (0, 7, 2**40 + 3):
        assert np.array_equal(split(prng_key(seed), 3), prng_split(prng_key(seed), 3))
        assert np.array_equal(normal(prng_key(seed), (5, 3)), prng_normal(prng_key(seed), (5, 3)))
    assert split(prng_key(0)).tolist() == [[4146024105, 967050713], [2718843009, 1272950319]]
    assert abs(normal(prng_key(0), (1,))[0] + 0.20584226) < 1e-7
    assert bucket_factors(None, 1024, 64) == [32] and bucket_factors(None, 16384, 128) == [16, 16]


def test_rotations_come_from_the_keys_in_the_state(tmp_path, capsys):
    """As Trax's next evaluation draws them: split the key of the head, then normal numbers."""
    cfg = small("reformer_lm", attn={"kind": "lsh", **HASH})
    keys = np.random.default_rng(1).integers(0, 2**32, size=(2, 8, 2), dtype=np.uint32)  # two rows of a batch
    state = [
        (np.zeros((8, 32), np.int32), keys[0]),
        [(), np.zeros(2, np.uint32), {"layer": (np.zeros(1, np.int32), keys[1])}],
    ]
    tensors, _ = read_container(import_triple(tmp_path / "a", cfg, weights_of(cfg), state=state))
    assert "keys in the checkpoint" in capsys.readouterr().err
    for layer in range(2):
        found = tensors[f"decoder.blocks.{layer}.attention.0.rotations"]
        for head in range(4):
            expected = prng_normal(prng_split(keys[layer][head])[1], (4, 2, 3))
            assert np.array_equal(found[head].transpose(2, 0, 1), expected)
    # Without keys they are drawn from a seed, the same at every import.
    without = [import_triple(tmp_path / name, cfg, weights_of(cfg)).read_bytes() for name in ("b", "c")]
    assert without[0] == without[1] and "state holds no keys" in capsys.readouterr().err
    other = import_triple(tmp_path / "d", cfg, weights_of(cfg), "--rotations-seed", "9").read_bytes()
    assert other != without[0]


def test_pure_and_mixed_lsh_of_a_terraformer(tmp_path, terrace):
    """Scoped settings of the encoder; the standard branch of the mixed layer."""
    lsh = {"kind": "purelsh", "num_weights": 3, **HASH}
    cfg = small("terraformer", enc_attn={**lsh, "after": 1}, attn={**lsh, "num_weights": 2, "std_length": 32}, n_attn=1)
    model = import_triple(tmp_path, cfg, weights_of(cfg))
    config = json.loads(read_container(model)[1]["config"])
    encoder, decoder = config["encoder"]["attention"][0], config["decoder"]["attention"][0]
    assert (encoder["kind"], encoder["n_chunks_after"], encoder["n_weights"]) == ("pure_lsh", 1, 3)
    assert (decoder["kind"], decoder["n_chunks_after"], decoder["n_weights"], decoder["std_length"]) == (
        "mixed_lsh",
        0,
        2,
        32,
    )
    assert subprocess.run([terrace, "verify", model], capture_output=True).returncode == 0


def test_embedded_input(tmp_path):
    cfg = small("terraformer", d_input=5, out_vocab=19)
    flat = weights_of(cfg)
    tensors, metadata = read_container(import_triple(tmp_path, cfg, flat))
    assert np.array_equal(tensors["encoder.input.weight"], flat[0].T)
    assert json.loads(metadata["config"])["encoder"]["d_input"] == 5


def test_transformer_of_the_old_function(tmp_path, terrace):
    """Transformer has no options; without a gin file its settings come by flag."""
    cfg = small("transformer", attn="causal", out_vocab=19)
    flat = weights_of(cfg, seed=1)
    save_checkpoint(str(tmp_path / "m.pkl.gz"), flat, new_format=False)
    out = tmp_path / "m.model"
    flags = ["--model", "Transformer", "--n-heads", "4", "--ff-activation", "Relu", "--n-encoder-layers", "2"]
    flags += ["--n-decoder-layers", "2"]
    flags += ["--output-vocab-size", "19"]
    assert import_trax.main([*flags, "--weights", str(tmp_path / "m.pkl.gz"), "--out", str(out)]) == 0
    inputs, tokens = [3, 7, 5, 2, 0], [4, 2, 9, 1]
    expected = oracle_of(cfg, flat).full(inputs, tokens)
    check_close(run_logits(terrace, out, tmp_path, [0, *tokens[:-1]], inputs), expected, "full")


def test_sparsity_of_the_feed_forward_as_a_word(tmp_path):
    """Gin files may hold "N rank temperature probability" as text."""
    cfg = small("lm", attn="causal", ff_sparsity=(8, 2, 0.1, 0.3))
    flat = weights_of(cfg)
    as_tuple = import_triple(tmp_path / "a", cfg, flat)
    as_text = import_triple(
        tmp_path / "b", cfg, flat, "--gin-param", "ConfigurableTransformerLM.ff_sparsity = '8 2 0.1 0.3'"
    )
    assert as_text.read_bytes() == as_tuple.read_bytes()


def test_softmax_features_of_favor_are_those_of_trax_code(tmp_path):
    """Made from key 0: orthogonal blocks of d_head rows; normalize_data goes into the maps of q and k."""
    attention = {"kind": "favor", "use_approximate_softmax": True, "normalize_data": True}
    cfg = small("terraformer", enc_attn=attention)
    flat = weights_of(cfg)
    tensors, _ = read_container(import_triple(tmp_path, cfg, flat))
    features = tensors["encoder.blocks.0.attention.0.features"]
    assert features.shape == (256, 4) and np.allclose(features, favor_matrix(256, 4, False), atol=1e-6)
    block = features[:4].astype(float)
    assert np.allclose(block @ block.T, 4 * np.eye(4), atol=1e-5)
    assert np.allclose(tensors["encoder.blocks.0.attention.0.q.weight"], flat[5].T / 4**0.25, rtol=1e-6)
    assert np.allclose(tensors["encoder.blocks.0.attention.0.v.weight"], flat[9].T, rtol=1e-6)


@pytest.mark.parametrize("scale_by_norm, normalize", [(False, False), (True, True)])
def test_softmax_features_equal_the_oracle(tmp_path, terrace, scale_by_norm, normalize):
    attention = {
        "kind": "favor",
        "use_approximate_softmax": True,
        "scale_by_norm": scale_by_norm,
        "normalize_data": normalize,
        "n_random_features": 30,  # no multiple of d_head: the last block is cut
    }
    check_model(terrace, tmp_path, small("transformer", attn="causal", enc_attn=attention), seed=5)


@pytest.mark.skipif(not COPY.exists(), reason="SKIP_WITHOUT_SHARED: Trax's trained checkpoint is not on this machine")
def test_a_checkpoint_that_trax_trained_copies_words(tmp_path, terrace):
    out = tmp_path / "copy.model"
    flags = ["--model", "TransformerLM", "--n-heads", "2", "--ff-activation", "@Relu", "--end-id", "-1"]
    assert import_trax.main([*flags, "--weights", str(COPY), "--out", str(out)]) == 0
    (tmp_path / "ids").write_text("0 3 7 5 3 2 4 0")  # the start id is fed before it
    command = [terrace, "generate", "-m", out, "--tokens", tmp_path / "ids", "-n", "6", "--temp", "0", "--ids"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert done.stdout.split() == "3 7 5 3 2 4".split(), done.stderr

    trained = Cfg("lm", vocab=13, d_model=64, d_ff=128, n_layers=2, n_heads=2, max_len=256)
    fed = [0, 0, 3, 7, 5, 3, 2, 4, 0, 3, 7, 5, 3, 2, 4]
    expected = oracle_of(trained, load_checkpoint(str(COPY))[0]).full([*fed[1:], 0])
    assert [int(np.argmax(row)) for row in expected[8:14]] == [3, 7, 5, 3, 2, 4]
    check_close(run_logits(terrace, out, tmp_path, fed), expected, "trained weights")


def test_biases_of_single_units_have_no_axis(tmp_path):
    """Trax stores the bias of a convolution with one output with shape ()."""
    cfg = small("lm", attn={"kind": "multconv", "sparsity": 16})
    flat = weights_of(cfg)
    as_trax = [w.reshape(()) if w.shape == (1,) else w for w in flat]
    assert sum(w.shape == () for w in as_trax) == 3 * cfg.n_layers
    files = [
        import_triple(tmp_path / name, cfg, weights).read_bytes() for name, weights in (("a", flat), ("b", as_trax))
    ]
    assert files[0] == files[1]


def test_tables_of_older_checkpoints_have_a_leading_axis(tmp_path):
    cfg = small("lm", attn="causal")
    flat = weights_of(cfg)
    older = [w[None] if i == 1 else w for i, w in enumerate(flat)]
    files = [import_triple(tmp_path / name, cfg, weights).read_bytes() for name, weights in (("a", flat), ("b", older))]
    assert files[0] == files[1]
