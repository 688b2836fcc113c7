"""Every draw is a pure function of keys: a 64-bit mixer, counter draws, and the seeds of each step. No hidden state.

Nothing here needs torch; what torch draws by these keys is in `draws`.
"""

from enum import IntEnum

import numpy as np

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


class Stream(IntEnum):
    """What a draw is for; two streams of one seed never meet. The numbers are part of `engine_bits`."""

    ORDER = 1
    STEP = 2
    WEIGHTS = 3
    BUILD = 4
    AUGMENT = 5
    EVALUATE = 6
    WITHIN = 7
    AMONG = 8
    CHANGE = 9


def finalise(word: int) -> int:
    """The splitmix64 finaliser: every input bit reaches every output bit."""
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & MASK
    return word ^ (word >> 31)


def mix(*words: int) -> int:
    """One 64-bit key from several words; their order matters."""
    key = GOLDEN
    for word in words:
        key = finalise(((key + GOLDEN) & MASK) ^ finalise((word + GOLDEN) & MASK))
    return key


def finalised(words: np.ndarray) -> np.ndarray:
    """`finalise` for every element of an array of uint64, by the same arithmetic."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(words ^ (words >> np.uint64(31)))


def extended(keys: np.ndarray, words: int | np.ndarray) -> np.ndarray:
    """New keys, each mixed from an old key and one more word; keys and words are broadcast as numpy arrays are."""
    inner = finalised(np.atleast_1d(np.asarray(words, np.uint64)) + np.uint64(GOLDEN))
    return finalised((keys + np.uint64(GOLDEN)) ^ inner)


def spread(key: int, words: np.ndarray) -> np.ndarray:
    """`mix(..., word)` for every word, where `key` is the mix of what comes before."""
    inner = finalised(words.astype(np.uint64) + np.uint64(GOLDEN))
    return finalised(np.bitwise_xor(np.uint64((key + GOLDEN) & MASK), inner))


def uniform(key: int, count: int) -> np.ndarray:
    """`count` float32 in [0, 1), exact multiples of 2**-24, the same on every machine."""
    bits = spread(key, np.arange(count, dtype=np.uint64)) >> np.uint64(40)
    return bits.astype(np.float32) * np.float32(2**-24)


class Draw:
    """The draws of one sample in one epoch, for augmentation: keyed by seed, epoch and sample, never by worker."""

    def __init__(self, seed: int, epoch: int, sample: int) -> None:
        self._key = mix(seed, Stream.AUGMENT, epoch, sample)
        self._count = 0

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """The next float in [low, high)."""
        self._count += 1
        return low + (high - low) * (mix(self._key, self._count) >> 40) * 2**-24

    def below(self, bound: int) -> int:
        """The next whole number in [0, bound)."""
        self._count += 1
        return mix(self._key, self._count) * bound >> 64

    def coin(self, share: float = 0.5) -> bool:
        """True with probability `share`."""
        return self.uniform() < share


def step_seeds(seed: int, first: int, count: int) -> list[int]:
    """The generator seeds of `count` micro-steps from `first` on."""
    keys = spread(mix(seed, Stream.STEP), np.arange(first, first + count, dtype=np.uint64))
    seeds: list[int] = (keys >> np.uint64(1)).tolist()
    return seeds
