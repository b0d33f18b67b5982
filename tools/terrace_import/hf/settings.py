# SPDX-License-Identifier: Apache-2.0
"""config.json, of which every key must be understood: one that is not may change the computation."""

from ..errors import ImportFailure

# Keys that change no number of inference: names and versions, training, sampling, what a program returns.
WITHOUT_EFFECT = frozenset("""
    _name_or_path transformers_version torch_dtype dtype use_cache initializer_range attention_dropout hidden_dropout
    pretraining_tp max_sequence_length pad_token_id unk_token_id sep_token_id cls_token_id tokenizer_class
    return_dict return_dict_in_generate output_attentions output_hidden_states output_scores torchscript
    gradient_checkpointing problem_type id2label label2id finetuning_task task_specific_params prefix
    chunk_size_feed_forward _attn_implementation attn_implementation _attn_implementation_autoset
    _flash_attn_2_enabled use_flash_attention unsloth_version unsloth_fixed
    do_sample temperature top_p top_k typical_p num_beams num_beam_groups num_return_sequences diversity_penalty
    repetition_penalty length_penalty encoder_no_repeat_ngram_size no_repeat_ngram_size max_length min_length
    early_stopping bad_words_ids suppress_tokens begin_suppress_tokens forced_bos_token_id forced_eos_token_id
    remove_invalid_values exponential_decay_length_penalty decoder_start_token_id
    """.split())
# Keys with the one value that means the plain computation.
PLAIN = {
    "is_decoder": (True, False),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "tie_encoder_decoder": (False,),
    "cross_attention_hidden_size": (),
    "pruned_heads": ({},),
    "use_bfloat16": (False,),
    "partial_rotary_factor": (1,),
}


class Settings:
    """Reads keys and remembers which; `null` is as good as absent."""

    def __init__(self, path, content):
        self.path = path
        self._content = content
        self._read = set()

    def get(self, key, default=None):
        self._read.add(key)
        value = self._content.get(key)
        return default if value is None else value

    def has(self, key):
        return key in self._content

    def fail(self, key, expected, found):
        raise ImportFailure(f"{self.path}: '{key}': expected {expected}, found {_short(found)}")

    def integer(self, key, low, high, default=None):
        value = self.get(key, default)
        if type(value) is not int or not low <= value <= high:
            self.fail(key, f"a whole number from {low} to {high}", value)
        return value

    def number(self, key, expected, fits):
        return self.check_number(key, self.get(key), expected, fits)

    def check_number(self, key, value, expected, fits):
        if type(value) not in (int, float) or not abs(value) < 1e300 or not fits(value):  # NaN is not below either
            self.fail(key, expected, value)
        return float(value)

    def flag(self, key, default=False):
        value = self.get(key, default)
        if type(value) is not bool:
            self.fail(key, "true or false", value)
        return value

    def finish(self):
        """Refuses what nothing has read and what is not known to change nothing."""
        for key, value in self._content.items():
            if key in self._read or key in WITHOUT_EFFECT or value is None:
                continue
            if key not in PLAIN:
                raise ImportFailure(
                    f"{self.path}: {key!r}: expected keys that the importer knows, found this one with {_short(value)}; "
                    "if it does not change what the model computes, remove it from the file"
                )
            if value not in PLAIN[key]:
                self.fail(key, " or ".join(map(repr, PLAIN[key])) or "nothing", value)


def _short(value):
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
