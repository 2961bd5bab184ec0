# SPDX-License-Identifier: Apache-2.0
"""What QMoE's format (Frantar and Alistarh 2023, arXiv 2310.16795) takes: rows of
trits as 16-bit words of one dictionary, the same for all models. Words are
sequences of pairs of trits, at most 14 pairs; the dictionary has the likeliest
ones if a trit is 0 with a probability of 0.885, by a heap that begins with the
empty word and takes up a word's nine successors when the word is taken."""

import heapq
import math

import numpy

WORDS = 1 << 16
MOST_PAIRS = 14
ZERO = 0.885
# Of each row: where it begins, and two levels in bf16.
ROW_BITS = 32 + 2 * 16


def dictionary():
    """next[word, pair] is the longer word, or -1; the empty word is 0."""
    of_trit = [ZERO, (1 - ZERO) / 2, (1 - ZERO) / 2]
    of_pair = [a * b for a in of_trit for b in of_trit]
    longer = numpy.full((WORDS, 9), -1, dtype=numpy.int32)
    # Of equally likely words the first one found.
    heap, found = [(-1.0, 0, 0, 0, 0)], 0
    for word in range(WORDS):
        likelihood, _, parent, pair, pairs = heapq.heappop(heap)
        if word:
            longer[parent, pair] = word
        if pairs == MOST_PAIRS:
            continue
        for following, probability in enumerate(of_pair):
            found += 1
            heapq.heappush(heap, (likelihood * probability, found, word,
                                  following, pairs + 1))
    return longer


def row_words(longer, trits):
    """How many words each row of trits (0, 1, 2; 0 is zero) is cut into, each
    time the longest that fits."""
    pairs = 3 * trits[:, 0::2] + trits[:, 1::2]
    word = numpy.zeros(len(trits), dtype=numpy.int32)
    count = numpy.zeros(len(trits), dtype=numpy.int64)
    for column in range(pairs.shape[1]):
        following = longer[word, pairs[:, column]]
        ends = following < 0
        count += ends
        word = numpy.where(ends, longer[0, pairs[:, column]], following)
    return count + 1


class Size:
    """Adds up what matrices of trits take."""

    def __init__(self):
        self.longer = dictionary()
        self.bits = self.trits = self.zeros = 0

    def add(self, trits):
        """[rows, an even number of columns]."""
        self.bits += 16 * int(row_words(self.longer, trits).sum())
        self.bits += ROW_BITS * len(trits)
        self.trits += trits.size
        self.zeros += int((trits == 0).sum())

    def to_json(self):
        zero = self.zeros / self.trits
        entropy = -zero * math.log2(zero) - (1 - zero) * math.log2(
            (1 - zero) / 2)
        return {"bits": self.bits, "trits": {
            "weights": self.trits, "zero": zero, "entropy": entropy,
            "bits_per_weight": self.bits / self.trits}}
