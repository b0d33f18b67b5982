# SPDX-License-Identifier: Apache-2.0
"""Training of Terrace models: data, model families, trainer and export to the model file."""
