"""Token ids of awkward prompts by transformers' CLIPTokenizer, for the tests of src/text.

Run from the root of the repository: python tools/reference/tokenizer.py
Writes tests/fixtures/tokenizer.json: {"prompts": [...], "<vocabulary>": {"ids": [[...], ...], "pad": id, ...}}, where ids are
those between the start and end marks, untruncated. Vocabularies: the folder models/tiny/tokenizer ("tiny"); the same one with
"!" for padding and words added by added_tokens.json, as SD 2.x and textual inversion have it ("added"), with the same words as
transformers 5 saves them in tokenizer.json ("saved") and as transformers 4 lists them in tokenizer_config.json ("listed");
CLIP's standard vocabulary, built from assets/clip_merges.txt.gz ("standard").
"""

import gzip
import json
import pathlib
import shutil
import tempfile

from transformers import CLIPTokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = ROOT / "models/tiny/tokenizer"

PROMPTS = [
    "",
    " ",
    "a red cat in the snow",
    "A RED Cat In THE Snow",
    "  a   red\tcat\n\nin the\r\nsnow  ",
    "a photo of a cat, sitting on a chair; (close-up), [8k]: {best}",
    "hello!",
    "hello !! world!!! wow!?!?",
    "!",
    "it's we're they've I'm he'll she'd don't can't 'tis rock'n'roll",
    "IT'S WE'RE THEY'VE I'M",
    "it\u2019s a curly apostrophe, don\u2019t",
    "1 12 123 1234567890 3.14 1,000,000 2nd 50% $9.99",
    "sd1.5 vs sd2.1 v2-1_768-ema-pruned",
    "snake_case camelCase kebab-case dot.case a/b\\c",
    "caf\u00e9 cr\u00e8me br\u00fbl\u00e9e na\u00efve",
    "cafe\u0301 decomposed e\u0301 A\u030a",
    "\u00dcBER STRASSE Stra\u00dfe \u1e9e",
    "\u0130stanbul \u0131spanak",
    "\u03a3\u0399\u03a3\u03a5\u03a6\u039f\u03a3 \u039f\u0394\u03a5\u03a3\u03a3\u0395\u03a5\u03a3",
    "\u041a\u0440\u0430\u0441\u043d\u0430\u044f \u043a\u043e\u0448\u043a\u0430 \u0432 \u0441\u043d\u0435\u0433\u0443",
    "\u7ea2\u8272\u7684\u732b\u5728\u96ea\u5730\u91cc",
    "\u8d64\u3044\u732b\u3001\u96ea\u306e\u4e2d\u3002\u30c6\u30b9\u30c8",
    "\ube68\uac04 \uace0\uc591\uc774",
    "\u0642\u0637\u0629 \u062d\u0645\u0631\u0627\u0621",
    "\u05d7\u05ea\u05d5\u05dc \u05d0\u05d3\u05d5\u05dd",
    "\u0932\u093e\u0932 \u092c\u093f\u0932\u094d\u0932\u0940",
    "\u0e41\u0e21\u0e27\u0e2a\u0e35\u0e41\u0e14\u0e07",
    "\U0001f600 \U0001f431\U0001f431 cat\U0001f431cat \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \u2764\ufe0f",
    "\u00bd \u00b2 \u2163 \u0663\u0664 \uff11\uff12 \u2460",
    "\ufb01ne \uff26\uff35\uff2c\uff2c width \u212b",
    "zero\u200bwidth no\u00a0break soft\u00adhyphen \ufeffbom",
    "line\u2028separator para\u2029graph next\u0085line \u3000ideographic",
    "tabs\tand\x0bvertical\x0cform",
    "control\x01\x02\x1fchars \x7f",
    "null\x00byte",
    "<|startoftext|> a cat <|endoftext|> after",
    "<|endoftext|>",
    "<|STARTOFTEXT|> upper <|EndOfText|>",
    "a<|endoftext|>b <|endoftext|><|endoftext|>",
    "< |endoftext|> <|endoftext| > <|endoftext",
    "<new0> <new1> <new10> <new2>",
    "a photo of <new0><new1> person",
    "<NEW0> x<new1>y <new 0>",
    "potter1 potter12 hermione_granger",
    "supercalifragilisticexpialidocious pneumonoultramicroscopicsilicovolcanoconiosis",
    "a" * 400,
    "ab" * 150,
    "word " * 120,
    "," * 100,
    "a, " * 60,
    "((masterpiece)), (best quality:1.2), [blurry], \\(escaped\\) BREAK",
    "\"quoted\" `code` ~tilde~ ^caret^ |pipe| <lora:foo:0.8> @user #tag &amp; &lt;b&gt;",
    "... \u2026 \u2014 \u2013 -- --- _ __ *bold* **",
    "\u00a9\u00ae\u2122 \u20ac\u00a3\u00a5 \u00b1\u00d7\u00f7 \u221e\u2260",
    "\u201cfancy\u201d \u00abguillemets\u00bb \u201elow\u201c",
    "\U0001d4d0\U0001d4d1\U0001d4d2 \U00010400\U00010428 \U0001f170",
    "\u01c5 \u01c8 \u1fbc \u0345",
    "x\u0301\u0302\u0303\u0304\u0305 z\u0335a\u0336l\u0337g\u0338o",
    "http://example.com/path?q=1&r=2#frag user@mail.com C:\\dir\\file.txt",
    "\u00e2\u20ac\u2122 mojibake \u00c3\u00a9",
    "\U0010ffff \ue000 \ufffd \ufffe",
    "'s 't 're 've 'm 'll 'd '' ' 'S 'sx !'s a''s",
    "don't!!!'s ,'re 1's 2'd \u00e9'll",
]


def standard_folder(folder):
    """CLIP's vocabulary as vocab.json and merges.txt, in the order that CLIP numbers it."""
    merges = (
        gzip.decompress((ROOT / "assets/clip_merges.txt.gz").read_bytes()).decode().splitlines()
    )
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(b) for b in printable] + [chr(256 + n) for n in range(256 - len(printable))]
    words = letters + [c + "</w>" for c in letters] + [m.replace(" ", "") for m in merges]
    words += ["<|startoftext|>", "<|endoftext|>"]
    assert len(words) == len(set(words)) == 49408
    (folder / "vocab.json").write_text(
        json.dumps({w: i for i, w in enumerate(words)}), encoding="utf-8"
    )
    (folder / "merges.txt").write_text(
        "#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8"
    )
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 77}))


def added_folder(folder):
    for name in ["vocab.json", "merges.txt"]:
        shutil.copy(TINY / name, folder / name)
    size = len(json.loads((TINY / "vocab.json").read_text(encoding="utf-8")))
    mark = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    files = {
        "tokenizer_config.json": {"model_max_length": 77, "pad_token": "<|endoftext|>"},
        "special_tokens_map.json": {
            "bos_token": {"content": "<|startoftext|>", **mark},
            "eos_token": {"content": "<|endoftext|>", **mark},
            "unk_token": {"content": "<|endoftext|>", **mark},
            "pad_token": "!",
        },
        "added_tokens.json": {f"<new{n}>": size + n for n in range(11)} | {"Potter1": size + 11},
    }
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value))


def saved_folder(folder):
    tokenizer = CLIPTokenizer.from_pretrained(TINY)
    tokenizer.add_tokens([f"<new{n}>" for n in range(11)] + ["Potter1"])
    tokenizer.save_pretrained(folder)


def listed_folder(folder):
    for name in ["vocab.json", "merges.txt"]:
        shutil.copy(TINY / name, folder / name)
    flags = {"lstrip": False, "rstrip": False, "single_word": False}
    words = [("<|startoftext|>", True, True), ("<|endoftext|>", False, True)]
    words += [(w, True, False) for w in [f"<new{n}>" for n in range(11)] + ["Potter1"]]
    listed = {
        str(2086 + n): {"content": word, "normalized": normalized, "special": special, **flags}
        for n, (word, normalized, special) in enumerate(words)
    }
    marks = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    config = {"added_tokens_decoder": listed, "model_max_length": 77, **marks}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    # Not read where the config lists the added tokens.
    (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": "!"}))


def ids(folder):
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    tokenizer._tokenizer.no_truncation()
    tokenizer._tokenizer.no_padding()
    rows = [tokenizer(p, padding=False, truncation=False)["input_ids"] for p in PROMPTS]
    for row in rows:
        assert row[0] == tokenizer.bos_token_id and row[-1] == tokenizer.eos_token_id
    full = tokenizer(PROMPTS, padding="max_length", max_length=77, truncation=True)["input_ids"]
    return {
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "pad": tokenizer.pad_token_id,
        "ids": [row[1:-1] for row in rows],
        "last_full": [row[-3:] for row in full],
    }


def main():
    result = {"prompts": PROMPTS, "tiny": ids(TINY)}
    folders = {
        "added": added_folder,
        "saved": saved_folder,
        "listed": listed_folder,
        "standard": standard_folder,
    }
    for name, make in folders.items():
        with tempfile.TemporaryDirectory() as folder:
            make(pathlib.Path(folder))
            result[name] = ids(folder)
    text = json.dumps(result, ensure_ascii=True, separators=(",", ":"))
    (ROOT / "tests/fixtures/tokenizer.json").write_text(text + "\n")


main()
