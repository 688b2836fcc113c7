"""Spellings of JSON, of what is almost JSON, and of envelopes: one list for all tests that read bodies in two ways."""

from __future__ import annotations

CONSTANTS = (b"NaN", b"Infinity", b"-Infinity")
"""What our reader takes for values and JSON does not have."""

PLAIN = [
    *(b"0", b"-0", b"-0.0", b"7", b"-7", b"1E5", b"1e+5", b"1e-5", b"1e400", b"-1e400", b"1e99999999999", b"0.1"),
    *(b"true", b"false", b"null", b"[]", b"{}", b'""', b'"\\/"', b'"\\u00e9"', b'"\\u0000"', b'"\x7f"', b" \n\t\r1 "),
    *(b'"\\ud83d\\ude00"', b'"\\uD83D\\uDE00"', b'"\xf0\x9f\x98\x80"', b'"\xe2\x80\xa8"', b'"\\\\ud800"', b'"NaN"'),
    *(b'{"a":1,"a":2}', b'{"":1}', b'{"NaN":"Infinity"}', b'"\\"NaN\\""', b"1" * 4300, b"-" + b"1" * 4300),
    *(b"0." + b"1" * 5000, b"1e" + b"0" * 5000, b"[" * 198 + b"1" + b"]" * 198, b"[" * 199 + b"]" * 199),
    *(b'{"a":' * 198 + b"1" + b"}" * 198, b'"' + b"[" * 5000 + b'"', b"[[]," * 198 + b"{}" + b"]" * 198),
    *(b'["' + b"\\\\" * 300 + b'"]', b'"\\\\\\u0041"', b"1.5e3", b'{"a":[{"b":[1,{"c":null}]}]}', b"9" * 400 + b".5"),
]
HOSTILE = [
    *(b"nan", b"-NaN", b"+NaN", b"inf", b"-inf", b"Inf", b"+Infinity", b"+1", b"01", b"-01", b"1.", b".5", b"-", b"1e"),
    *(b"1e+", b"1_0", b"0x1", b"1e1.5", b"--1", b"1-", b"True", b"None", b"undefined", b"1 2", b"", b" ", b"tru"),
    *(b"/*a*/1", b"1//", b"'a'", b"{a:1}", b"{1:2}", b'{"a":1,}', b"[1,]", b"[,]", b"[1 2]", b'{"a" 1}', b'{"a":}'),
    *(
        b'"a',
        b'"\t"',
        b'"\x00"',
        b'"\x1f"',
        b'"\n"',
        b'"\\x41"',
        b'"\\u12"',
        b'"\\u12g4"',
        b'"\\',
        b"[",
        b"]",
        b"{",
        b"}",
    ),
    *(b'"\\ud800"', b'"\\udc00"', b'"\\ud800\\u0041"', b'"\\ud800x"', b'"\\uD800\\uD800\\uDC00"', b'{"\\ud800":1}'),
    *(b'"\\ud800\\\\udc00"', b'"\\\\\\ud800"', b'{"a":"\\udfff","a":1}', b'"\xed\xa0\x80"', b'"\xff"', b'"\xc0\x80"'),
    *(b'"\xf4\x90\x80\x80"', b"\xef\xbb\xbf1", b"\xc2\xa01", b"\xe2\x80\xa81", b"\x0b1", b"\x0c1", b"1\x00", b'"\xe9"'),
    *(b"1" * 4301, b"-" + b"1" * 4301, b"1" * 4301 + b".5", b"1" * 4301 + b"e5", b'{"a":' + b"1" * 4301 + b',"a":1}'),
    *(b"[" * 199 + b"1" + b"]" * 199, b"[" * 200 + b"]" * 200, b'{"a":' * 199 + b"1" + b"}" * 199, b"[" * 5000),
    *(b"[" * 300000, b'{"a":' + b"[" * 198 + b"1" + b"]" * 198 + b',"a":1}', b"[[]," * 199 + b"1" + b"]" * 199),
]

FRAGMENTS = [
    *(b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b" ", b"\n", b"\x00", b"\xff", b"\xed\xa0\x80", b"\xc3\xa9"),
    *(b"9" * 40, b"[" * 300, b'{"a":' * 300, b"\\u0061", b"\\ud800"),
]
"""Pieces that make something else of a body wherever they come to stand."""

SHORT = 400
ODD = [*FRAGMENTS, *(one for one in (*PLAIN, *HOSTILE, *CONSTANTS) if len(one) < SHORT)]
"""Whatever of all this may be put into a body many times."""


ENVELOPES = [
    (b'"laneseq":1', b'"laneseq":1.0'),
    (b'"laneseq":1', b'"laneseq":1e0'),
    (b'"laneseq":1', b'"laneseq":01'),
    (b'"laneseq":1', b'"laneseq":0'),
    (b'"laneseq":1', b'"laneseq":-1'),
    (b'"laneseq":1', b'"laneseq":' + b"1" * 30),
    (b'"laneseq":1', b'"laneseq":NaN'),
    (b'"laneseq":1', b'"laneseq":true'),
    (b'"laneseq":1', b'"laneseq":2,"laneseq":1'),
    (b'"laneseq":1', b'"laneseq":1,"laneseq":2'),
    (b'"laneseq":1', b'"laneseq":"\\ud800","laneseq":1'),
    (b'"laneseq":1', b'"lane\\u0073eq":1'),
    (b'"laneseq":1', b'"laneseq":1,"extra":1'),
    (b'"epoch":1', b'"epoch":' + b"9" * 4301),
    (b'"epoch":1', b'"epoch":' + b"9" * 4300),
    (b'"epoch":1', b'"epoch":Infinity'),
    (b'"epoch":1', b'"epoch":1.0'),
    (b'"epoch":1', b'"epoch":null'),
    (b'"epoch":1', b'"epoch":-0'),
    (b'"epoch":1', b'"epoch":true'),
    (b'"id":"one"', b'"id":""'),
    (b'"id":"one"', b'"id":"' + b"x" * 65 + b'"'),
    (b'"id":"one"', b'"id":"a\\u0062"'),
    (b'"id":"one"', b'"id":"one","id":"two"'),
    (b'"id":"one"', b'"id":"\xff"'),
    (b'"id":"one"', b'"id":"\xc3\xa9"'),
    (b'"id":"one"', b'"id": "one"'),
    (b'"time":"t"', b'"time":null'),
    (b'"time":"t"', b'"time":"\xf0\x9f\x98\x80"'),
    (b'"time":"t"', b'"time":"' + b"\xc3\xa9" * 40 + b'"'),
    (b'"time":"t"', b'"time":"' + b"\xc3\xa9" * 41 + b'"'),
    (b'"data":{', b'"data": {'),
    (b'"data":{', b'"data":{},"data":{'),
    (b"{", b"\xef\xbb\xbf{"),
    (b"{", b" \n{"),
    (b"{", b"[{"),
    (b"}}", b"}}\n"),
    (b"}}", b"}} "),
    (b"}}", b"}}\x00"),
    (b"}}", b"}}}"),
    (b"}}", b"}},"),
    (b"}}", b"},"),
    (b"}}", b"}]"),
    (b"}}", b'},"step":3}'),
]
"""What is changed in a body whose envelope says id one, time t, laneseq 1 and epoch 1, and into what."""
