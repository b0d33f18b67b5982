# SPDX-License-Identifier: Apache-2.0
"""From a model configuration to a model."""

from train.errors import TrainError
from train.language_model import LanguageModel
from train.terraformer import Terraformer

FAMILIES = {"transformer_lm": LanguageModel, "terraformer": Terraformer}


def build_model(config):
    """Model of the configuration's family with fresh weights. Errors: unknown family, missing key."""
    family = config.get("family")
    if family not in FAMILIES:
        raise TrainError(f"model.family '{family}': expected one of {', '.join(FAMILIES)}")
    try:
        return FAMILIES[family](config)
    except KeyError as error:
        raise TrainError(f"model configuration: {error} is missing") from error
