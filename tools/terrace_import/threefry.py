# SPDX-License-Identifier: Apache-2.0
"""JAX's random generator: Threefry-2x32 with 20 rounds in its legacy layout (Salmon et al. 2011)."""

import numpy as np

ROTATE = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = np.uint32(0x1BD11BDA)
# Inverse error function in single precision (Giles 2010), near the centre and in the tails.
NEAR = (
    2.81022636e-08,
    3.43273939e-07,
    -3.5233877e-06,
    -4.39150654e-06,
    0.00021858087,
    -0.00125372503,
    -0.00417768164,
    0.246640727,
    1.50140941,
)
FAR = (
    -0.000200214257,
    0.000100950558,
    0.00134934322,
    -0.00367342844,
    0.00573950773,
    -0.0076224613,
    0.00943887047,
    1.00167406,
    2.83297682,
)


def threefry_bits(key, count):
    """`count` random words: counters 0, 1, .. (padded to an even number), first and second half as the two lanes."""
    counters = np.zeros(count + count % 2, np.uint32)
    counters[:count] = np.arange(count, dtype=np.uint32)
    a, b = np.split(counters, 2)
    keys = [np.uint32(key[0]), np.uint32(key[1]), np.uint32(key[0]) ^ np.uint32(key[1]) ^ PARITY]
    with np.errstate(over="ignore"):
        a, b = a + keys[0], b + keys[1]
        for group in range(5):
            for shift in ROTATE[group % 2]:
                a = a + b
                b = ((b << np.uint32(shift)) | (b >> np.uint32(32 - shift))) ^ a
            a = a + keys[(group + 1) % 3]
            b = b + keys[(group + 2) % 3] + np.uint32(group + 1)
    return np.concatenate([a, b])[:count]


def split(key, count=2):
    return threefry_bits(key, 2 * count).reshape(count, 2)


def normal(key, shape):
    """Standard normal float32: sqrt(2) erfinv(u), u uniform in (-1, 1)."""
    bits = threefry_bits(key, int(np.prod(shape)))
    unit = ((bits >> np.uint32(9)) | np.uint32(0x3F800000)).view(np.float32) - np.float32(1)
    low = np.nextafter(np.float32(-1), np.float32(0))
    u = np.maximum(low, unit * (np.float32(1) - low) + low)
    return (np.float32(np.sqrt(2)) * _erfinv(u)).reshape(shape)


def _erfinv(x):
    w = (-np.log1p(-x * x)).astype(np.float32)
    near = w < 5
    w = np.where(near, w - np.float32(2.5), np.sqrt(w) - np.float32(3)).astype(np.float32)
    p = np.zeros_like(w)
    for a, b in zip(NEAR, FAR):
        p = np.where(near, np.float32(a), np.float32(b)) + p * w
    return (p * x).astype(np.float32)
