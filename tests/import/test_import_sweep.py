# SPDX-License-Identifier: Apache-2.0
"""Every pair of options of the Terraformer, the transformer with cross attention and the ReformerLM, in some model, equals
the oracle: whole sequences, row by row, and a prefill followed by rows."""

import pytest
from comparison import check_model
from sweep_axes import sweep

SWEEP = sweep()


def test_the_sweep_is_as_large_as_promised():
    assert len(SWEEP) >= 60


@pytest.mark.parametrize("name", SWEEP)
def test_pairs_of_options_equal_the_oracle(name, tmp_path, terrace):
    check_model(terrace, tmp_path, SWEEP[name], seed=list(SWEEP).index(name))
