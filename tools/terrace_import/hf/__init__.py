# SPDX-License-Identifier: Apache-2.0
"""From a folder with a LLaMA-shaped model in the layout of Hugging Face to a model file.

    json_file.py          JSON objects from files that may hold anything
    safetensors_file.py   one .safetensors file: its header, checked; its tensors, piece by piece
    weights.py            the tensors of the folder, in one file or in shards
    settings.py           config.json, of which every key must be understood
    architecture.py       LLaMA and Mistral: the settings that they have, and the model file's configuration
    tensors.py            which tensor of the folder becomes which of the model file
    text.py               tokenizer.model; the ids that start and end a text

Nothing is executed: no pickles, no code of the folder. ../output.py writes the file.
"""
