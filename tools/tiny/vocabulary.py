"""The byte-pair vocabulary, in CLIP's own format and cut down from CLIP's own merges.

`Vocabulary` encodes captions from `vocab.json` and `merges.txt`. `build_vocabulary` makes those files: CLIP's first
merges plus those that the world's words need, so that these words are cut as CLIP cuts them.
"""

import json
import re
from functools import lru_cache
from pathlib import Path

START, END = "<|startoftext|>", "<|endoftext|>"
_WORDS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|[^\s\w]+")

# Words that users and tuning need beside those of the captions.
EXTRA_WORDS = """boy girl person people character face portrait wearing holding sitting standing running jumping walking
top bottom middle behind under above front near large little old young teal cyan magenta gold silver bird horse fish rabbit
bear lion tiger robot toy plush doll monster alien castle temple bridge river lake ocean sky sun cloud rain storm tree flower
grass rock stone painting sketch drawing style high quality resolution low blurry bad worst best detailed anime realistic
photo image picture background scene hat glasses shirt dress jacket suit pants shoes bag book cup bottle lamp sofa bed desk
window door wall floor new concept one two three four and or with without the of in on at to for from by is are it this that
place""".split()


def _byte_alphabet():
    """CLIP's printable stand-ins for the 256 bytes, in its order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {b: chr(b) for b in printable}
    for b in range(256):
        if b not in table:
            table[b] = chr(256 + len(table) - len(printable))
    return table


_BYTES = _byte_alphabet()


def _cut(word, ranks, used=None):
    """The pieces of one word under the merges ranked in `ranks`; records the merges it took in `used`."""
    pieces = [*word[:-1], word[-1] + "</w>"]
    while len(pieces) > 1:
        best = min(zip(pieces, pieces[1:]), key=lambda pair: ranks.get(pair, 1 << 30))
        if best not in ranks:
            break
        if used is not None:
            used.add(best)
        merged, i = [], 0
        while i < len(pieces):
            if tuple(pieces[i : i + 2]) == best:
                merged.append(pieces[i] + pieces[i + 1])
                i += 2
            else:
                merged.append(pieces[i])
                i += 1
        pieces = merged
    return pieces


def _read_merges(path):
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return [
        tuple(line.split()) for line in lines if line and not line.startswith(("#version", '"bpe'))
    ]


class Vocabulary:
    """Encodes text as CLIP's tokenizer does, from a folder with `vocab.json` and `merges.txt`."""

    def __init__(self, folder):
        folder = Path(folder)
        self.numbers = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        self.ranks = {pair: i for i, pair in enumerate(_read_merges(folder / "merges.txt"))}
        self.start, self.end = self.numbers[START], self.numbers[END]
        self._word = lru_cache(maxsize=None)(self._encode_word)

    def __len__(self):
        return len(self.numbers)

    def _encode_word(self, word):
        symbols = "".join(_BYTES[b] for b in word.encode("utf-8"))
        return [self.numbers[piece] for piece in _cut(symbols, self.ranks)]

    def encode(self, text, length):
        """Exactly `length` numbers: start, the text's pieces (cut off if too many), then end tokens as padding."""
        pieces = [n for word in _WORDS.findall(text.lower()) for n in self._word(word)]
        return ([self.start, *pieces[: length - 2]] + [self.end] * length)[:length]


def build_vocabulary(clip_merges, words, folder, first=1400):
    """Writes `vocab.json` and `merges.txt`: CLIP's `first` merges and those that cut `words` as CLIP does."""
    merges = _read_merges(clip_merges)[: 49152 - 256 - 2]
    ranks = {pair: i for i, pair in enumerate(merges)}
    used = set(merges[:first])
    for word in words:
        _cut("".join(_BYTES[b] for b in word.encode("utf-8")), ranks, used)
    kept = [pair for pair in merges if pair in used]
    alphabet = list(_BYTES.values())
    pieces = (
        alphabet + [c + "</w>" for c in alphabet] + ["".join(pair) for pair in kept] + [START, END]
    )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(
        json.dumps({p: i for i, p in enumerate(pieces)}, ensure_ascii=False), encoding="utf-8"
    )
    (folder / "merges.txt").write_text(
        "#version: 0.2\n" + "".join(" ".join(pair) + "\n" for pair in kept), encoding="utf-8"
    )
    return len(pieces)
