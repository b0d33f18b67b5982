# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of oracle models, imported and run: the engine's logits equal the oracle's, at once and step by step."""

import pytest
from comparison import check_model
from model_cases import CASES


@pytest.mark.parametrize("name", CASES)
def test_imported_models_equal_the_oracle(name, tmp_path, terrace):
    check_model(terrace, tmp_path, CASES[name], seed=len(name))
