# SPDX-License-Identifier: Apache-2.0
"""An oracle for the numbers of Terrace in plain numpy, independent of the C++ code and of the importer.

Everything is batch 1: activations are [L, d] arrays, one row per position. Every stateful layer has two entry points
that must agree, and test_oracle.py checks that they do:

    full(x)   the whole sequence at once             (Trax mode 'eval')
    feed(x)   append any number of rows to the state (Trax mode 'predict', made exact)

It was compared with the layer code of Trax itself for about 100 configurations (differences below 1e-6). Needs numpy
only. The docstrings name the modules of Trax that define the layers.
"""
