"""Requests that nobody should send to a data plane: a seeded grammar of them, each with what may come back."""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

INFER = "/v2/models/flight-delay/infer"
MAX_BODY = 4 << 20

Mutation = Callable[[random.Random, dict[str, Any]], bool]


class Raw(str):
    """Text that goes into the JSON as it is."""


@dataclass(frozen=True)
class Case:
    """One thing to send, and what may come of it.

    `must_refuse`: an answer with 200 would be a fault. `bare`: it is no HTTP, so the server may refuse it without a JSON
    body, or hang up. `last`: no other request can follow on its connection. `replies`: how many answers are due.
    """

    kind: str
    data: bytes
    must_refuse: bool = False
    bare: bool = False
    last: bool = False
    replies: int = 1
    head: bool = False


def dumped(value: Any) -> str:
    """JSON with `Raw` leaves left as they are."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{dumped(k)}:{dumped(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(dumped, value)) + "]"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    return repr(value) if not isinstance(value, bool | None) else {None: "null", True: "true", False: "false"}[value]


def good(number: float = 500.0, name: str = "valid") -> dict[str, Any]:
    columns = (
        ("distance", "FP64", number),
        ("hour", "INT64", 9),
        ("carrier", "BYTES", "AA"),
        ("origin", "BYTES", "JFK"),
    )
    return {"id": name, "inputs": [{"name": n, "shape": [1], "datatype": d, "data": [v]} for n, d, v in columns]}


# What a value, a shape, a type, a name may be

NO_NUMBER = tuple(map(Raw, ("NaN", "Infinity", "-Infinity", "+1", "1e999", "-1e999", "9" * 4300, "-" + "9" * 4300, "9" * 5000, "0x10",
             "01", "1.", ".5", "1_000", '"1.5"', '"NaN"', '"Infinity"', "true", "false", "{}", '{"a":1}', "[]", "[[1]]", "nan",
             "1e39", "-1e39", "null", "undefined", "1e", "--1", "1e400", "", "1 2", '{"$numberDouble":"NaN"}')))  # fmt: skip
NO_INTEGER = tuple(
    map(
        Raw,
        (
            "1.5",
            "9223372036854775808",
            "-9223372036854775809",
            "9" * 4300,
            "1e999",
            "NaN",
            "true",
            '"9"',
            "[9,9]",
            "{}",
        ),
    )
)
NO_TEXT = tuple(
    map(
        Raw,
        (
            "5",
            "true",
            "1.5",
            "[[]]",
            "{}",
            "NaN",
            '"\\ud800"',
            '"\\udc00x"',
            '"\\ud800\\u0041"',
            "'AA'",
            '"\\x41"',
            '"a\nb"',
            '"\\u00"',
        ),
    )
)
ODD_TEXT = tuple(map(Raw, ('"\\u0000"', '"\\ud83d\\ude00"', '"<script>alert(1)</script>"', '"../../etc/passwd"', '""', '"\\u202e"', '"aa"',
            '"' + "é" * 256 + '"', '"' + "\\u0301" * 200 + '"', '"\\n\\r\\t"', '"%s%n"', "\"' OR 1=1 --\"", "null")))  # fmt: skip
NO_SHAPE = tuple(map(Raw, ("[]", "[0]", "[-1]", "[2]", "[1,2]", "[1,1,1]", "[99999999999999999999]", '["1"]', "null", '"1"', "[true]", "[[1]]",
            "1", "{}", "[NaN]", "[1.5]", "[-9223372036854775808]", "[4294967297]", "[1,-1]", "[1e3]", "[" + ",".join("1" * 64) + "]")))  # fmt: skip
NO_TYPE = (
    "FP8",
    "fp64",
    "",
    "FP64 ",
    "float",
    "INT128",
    "BYTES\u0000",
    "<i>",
    "BOOL",
    "object",
    "np.float64",
    "FP" + "6" * 500,
)
NO_NAME = ("distanc", "Distance", "DISTANCE", "", " distance", "distance ", "wind", "gusty", "__proto__", "constructor", "distance\u0000",
           "ｄistance", "../distance", "<script>", "n" * 5000)  # fmt: skip
NO_LIST = tuple(map(Raw, ("null", "{}", '""', "0", "[null]", "[[]]", "[1]", '["a"]', "[{}]", "true")))
NO_ID = (Raw("5"), Raw("null"), Raw("[]"), Raw("{}"), "i" * 300, Raw("1e999"), Raw('"\\ud800"'))
ODD_ID = (
    "a\nb",
    "<script>alert(1)</script>",
    "\u202e\u0000",
    "💥" * 60,
    "' OR 1=1 --",
    "",
    "{{7*7}}",
    "${jndi:ldap://x}",
    "%0d%0aset-cookie: a=b",
)


def _input(request: dict[str, Any], name: str) -> dict[str, Any]:
    found = [t for t in request["inputs"] if isinstance(t, dict) and t.get("name") == name]
    return found[0] if found else {}


def _set(name: str, member: str, choices: tuple[Any, ...], wrap: bool, refused: bool) -> Mutation:
    def mutate(chance: random.Random, request: dict[str, Any]) -> bool:
        tensor, value = _input(request, name), chance.choice(choices)
        tensor[member] = [value] if wrap else value
        return refused

    return mutate


def _ragged(chance: random.Random, request: dict[str, Any]) -> bool:
    tensor, rows = _input(request, chance.choice(("distance", "hour"))), chance.choice((2, 3, 64, 10_001))
    tensor["data"], tensor["shape"] = [1] * rows, [rows]
    return True


def _nested(chance: random.Random, request: dict[str, Any]) -> bool:
    tensor = _input(request, "distance")
    tensor["shape"] = [1, 1]
    tensor["data"] = chance.choice(([[1.5]], [[1.5], [2.5]], [[]], [[1.5, 2.5]], [[[1.5]]], [[None]], [[Raw("NaN")]]))
    return bool(tensor["data"] != [[1.5]])


def _drop_input(chance: random.Random, request: dict[str, Any]) -> bool:
    del request["inputs"][chance.randrange(len(request["inputs"]))]
    return True


def _twice(chance: random.Random, request: dict[str, Any]) -> bool:
    request["inputs"].append(chance.choice(request["inputs"]))
    return True


def _extra_input(chance: random.Random, request: dict[str, Any]) -> bool:
    tensor = {"name": chance.choice(NO_NAME), "shape": [1], "datatype": "FP64", "data": [1.0]}
    request["inputs"] += [tensor] * chance.choice((1, 1, 1, 500))
    return True


def _drop_member(chance: random.Random, request: dict[str, Any]) -> bool:
    del _input(request, "hour")[chance.choice(("name", "shape", "datatype", "data"))]
    return True


def _extra_member(chance: random.Random, request: dict[str, Any]) -> bool:
    where = chance.choice((request, _input(request, "hour")))
    where[chance.choice(("contents", "__class__", "Inputs", "data ", "raw_input_contents"))] = chance.choice(
        (1, None, {})
    )
    return True


def _double_member(chance: random.Random, request: dict[str, Any]) -> bool:
    where = chance.choice((request, _input(request, "distance")))
    name = chance.choice(list(where))
    again = f'"{name}"' if chance.random() < 0.7 else f'"\\u{ord(name[0]):04x}{name[1:]}"'
    where[Raw(again)] = where[name]
    return True


def _inputs(chance: random.Random, request: dict[str, Any]) -> bool:
    request["inputs"] = chance.choice(NO_LIST)
    return True


def _outputs(chance: random.Random, request: dict[str, Any]) -> bool:
    request["outputs"] = chance.choice(
        (*NO_LIST[1:], [{"name": "none"}], [{"name": "label"}] * 2, [{"name": 5}], [{"name": "label", "x": 1}])
    )
    return True


def _id(chance: random.Random, request: dict[str, Any]) -> bool:
    request["id"] = chance.choice(NO_ID)
    return True


def _odd_id(chance: random.Random, request: dict[str, Any]) -> bool:
    request["id"] = chance.choice(ODD_ID)
    return False


def _parameters(chance: random.Random, request: dict[str, Any]) -> bool:
    depth = chance.choice((1, 5, 200, 900))
    request["parameters"] = chance.choice(({"a": Raw("[" * depth + "]" * depth)}, {"a": Raw('{"a":' * depth + "1" + "}" * depth)}, [], "x",
                            {"routing_key": 5}, {"routing_key": "k" * 300}, {"a": Raw("NaN")}, {f"k{i}": i for i in range(1000)}))  # fmt: skip
    return len(request["parameters"]) < 1000


def _binary(chance: random.Random, request: dict[str, Any]) -> bool:
    _input(request, chance.choice(("distance", "origin")))["parameters"] = {
        "binary_data_size": chance.choice((8, -1, "8"))
    }
    return True


MUTATIONS: dict[str, Mutation] = {
    "no number": _set("distance", "data", NO_NUMBER, True, True),
    "no integer": _set("hour", "data", NO_INTEGER, True, True),
    "no text": _set("carrier", "data", NO_TEXT, True, True),
    "no key": _set("origin", "data", (*NO_TEXT, "k" * 257, "é" * 300), True, True),
    "odd text": _set("carrier", "data", ODD_TEXT, True, False),
    "odd key": _set("origin", "data", ODD_TEXT, True, False),
    "data": _set("distance", "data", tuple(map(Raw, ("null", "{}", '""', "0", "[null]", "[[]]", '["a"]', "[{}]", "[,]", "[1,]"))), False, True),
    "shape": _set("hour", "shape", NO_SHAPE, False, True),
    "datatype": _set("distance", "datatype", (*NO_TYPE, *map(Raw, ("null", "5", "[]"))), False, True),
    "name": _set("distance", "name", (*NO_NAME, *map(Raw, ("null", "5", "{}"))), False, True),
    "ragged": _ragged, "nested": _nested, "missing input": _drop_input, "input twice": _twice, "extra input": _extra_input,
    "missing member": _drop_member, "extra member": _extra_member, "member twice": _double_member, "inputs": _inputs,
    "outputs": _outputs, "id": _id, "odd id": _odd_id, "parameters": _parameters, "binary": _binary,
}  # fmt: skip


# What a body may be


def mutated(chance: random.Random) -> tuple[str, bytes, bool]:
    """(kind, body, whether it must be refused): a good request with one to three things wrong."""
    request, kinds, refused = good(chance.choice((0.0, -1.5, 500.0, 3e38))), [], False
    for kind in chance.sample(sorted(MUTATIONS), chance.choice((1, 1, 1, 2, 3))):
        try:
            refused |= MUTATIONS[kind](chance, request)
        except (TypeError, KeyError, IndexError, AttributeError, ValueError):
            continue  # an earlier mutation took away what this one changes
        kinds.append(kind)
    return (
        kinds[0] if kinds else "nothing",
        dumped(request).encode("utf-8", "surrogatepass"),
        refused and len(kinds) == 1,
    )


def damaged(chance: random.Random) -> tuple[str, bytes, bool]:
    """A good request whose bytes are wrong."""
    text = dumped(good()).encode()
    at, kind = chance.randrange(len(text)), chance.randrange(14)
    many = chance.choice((100, 1000, 100_000, 1_000_000))
    made: tuple[tuple[str, bytes, bool], ...] = (
        ("truncated", text[:at], True), ("bytes", text[:at] + chance.randbytes(3) + text[at:], False),
        ("flipped", text[:at] + bytes([text[at] ^ 1 << chance.randrange(8)]) + text[at + 1 :], False),
        ("BOM", b"\xef\xbb\xbf" + text, True), ("UTF-16", text.decode().encode("utf-16"), True),
        ("UTF-32", text.decode().encode("utf-32"), True), ("trailing", text + chance.choice((b"x", text, b"\x00", b"]")), True),
        ("comment", text[:1] + b"/* */" + text[1:], True), ("comma", text[:-1] + b",}", True),
        ("quotes", text.replace(b'"', b"'"), True), ("bad UTF-8", text.replace(b"JFK", chance.choice((b"\xff", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf5\x80"))), True),
        ("deep", b"[" * many if chance.random() < 0.5 else b'{"inputs":' * (many // 10), True),
        ("deep data", text.replace(b"500.0", b"[" * many + b"]" * many), True),
        ("no JSON", chance.choice((b"", b" ", b"null", b"true", b"5", b'""', b"[]", b"{}", b"inputs=1", b"<xml/>", b"\x80\x04\x95.", b"\x1f\x8b", b"---")), True),
    )  # fmt: skip
    return made[kind]


@lru_cache(1)
def largest() -> tuple[tuple[str, bytes], ...]:
    """Bodies close to the largest that is taken, and one beyond it. Not one is acceptable."""
    room = MAX_BODY - 400
    text = dumped(good())

    def data(values: str) -> bytes:
        return text.replace("500.0", values).encode()

    tensor = '{"name":"","shape":[],"datatype":"","data":[]}'
    return (
        ("many values", data(",".join(["1"] * (room // 2)))),
        ("many lists", data(",".join(["[1]"] * (room // 4)))),
        ("many empties", data(",".join(["[]"] * (room // 3)))),
        ("many objects", b'{"inputs":[],"parameters":{"a":[' + b",".join([b"{}"] * (room // 3)) + b"]}}"),
        ("many members", b'{"inputs":[],"parameters":{' + b",".join(b'"%x":1' % i for i in range(room // 12)) + b"}}"),
        ("many inputs", ('{"inputs":[' + ",".join([tensor] * (room // 48)) + "]}").encode()),
        ("long text", text.replace("AA", "a" * room).encode() + b"x"),
        ("long number", data("1." + "9" * room) + b"x"),
        ("long integer", data("9" * room)),
        ("escapes", text.replace("JFK", "\\u00e9" * (room // 6)).encode()),
        ("long shape", text.replace("[1]", "[" + "1," * (room // 2) + "1]", 1).encode()),
        ("white space", b" " * room),
        ("too large", b" " * (MAX_BODY + 100_000)),
    )  # fmt: skip


# What a request around it may be


def http(body: bytes, token: str, *more: str, method: str = "POST", path: str = INFER, length: str = "") -> bytes:
    """A request as it goes over the wire; `length` instead of the body's own."""
    head = [f"{method} {path} HTTP/1.1", "host: localhost", f"authorization: Bearer {token}", *more]
    head.append(f"content-length: {length or len(body)}")
    return "\r\n".join([*head, "", ""]).encode("utf-8", "surrogateescape") + body


def chunks(body: bytes, sizes: tuple[int, ...]) -> bytes:
    out, at = b"", 0
    for size in sizes:
        part = body[at : at + size]
        at += size
        out += b"%x\r\n%s\r\n" % (len(part), part) if part else b""
    return out + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body) - at, body[at:])


def encoded(chance: random.Random, token: str) -> Case:
    """Content encodings and types."""
    body = dumped(good()).encode()
    bomb = gzip.compress(b" " * (1 << 20), mtime=0)
    made = (
        ("gzip bomb", http(gzip.compress(bomb, mtime=0), token, "content-encoding: gzip"), True),
        ("gzip", http(gzip.compress(body, mtime=0), token, "content-encoding: gzip"), True),
        ("gzip unsaid", http(gzip.compress(body, mtime=0), token), True),
        ("deflate", http(zlib.compress(body), token, "content-encoding: deflate"), True),
        ("unknown encoding", http(body, token, f"content-encoding: {chance.choice(('br', 'zstd', 'x', 'gzip, gzip', 'identity, gzip', 'GZIP', 'aws-chunked'))}"), True),
        ("odd encoding", http(body, token, "content-encoding: identity", "content-encoding: gzip"), False),
        ("encoding bytes", http(body, token, "content-encoding: \udcff\udce9"), True),
        ("binary tensors", http(body, token, f"inference-header-content-length: {chance.choice(('8', '-1', '9' * 50, 'x'))}"), True),
        ("content type", http(body, token, f"content-type: {chance.choice(('text/xml', 'multipart/form-data', 'application/x-pickle', '', 'é', 'a/b; charset=utf-16'))}"), False),
        ("expect", http(body, token, "expect: 100-continue"), False),
        ("chunked", http(b"", token, "transfer-encoding: chunked").replace(b"content-length: 0\r\n", b"") + chunks(body, (1, 7, 50)), False),
        ("chunked, wrong", http(b"", token, "transfer-encoding: chunked").replace(b"content-length: 0\r\n", b"") + chunks(body[:-9], (3, 3)), True),
    )  # fmt: skip
    kind, data, refused = chance.choice(made)
    return Case(kind, data, refused)


def addressed(chance: random.Random, token: str) -> Case:
    """Paths and methods."""
    body = dumped(good()).encode()
    name = chance.choice(("..", "%2e%2e", "..%2f..%2fetc%2fpasswd", "%00", "%0d%0aset-cookie:a", "x" * 3000, "flight-delay%20", "Flight-Delay",
                          "%22%7d", "'", "%ff", "%C0%AF", ".", "flight-delay;x=1", "%252e", "<script>", "nothing", "%F0%9F%92%A5"))  # fmt: skip
    path = chance.choice((f"/v2/models/{name}/infer", f"/v2/models/flight-delay/versions/{name}/infer", f"/{name}", f"/v2/{name}",
                          f"//v2/models/{name}", f"/v2/models/{name}", f"/falaj/v1/{name}", f"{INFER}/{name}", f"{INFER}?x={name}"))  # fmt: skip
    if chance.random() < 0.4:
        method = chance.choice(("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "BREW", "post", "M" * 200))
        return Case("method", http(body, token, method=method), True, head=method == "HEAD")
    return Case("path", http(body, token, path=path), "?" not in path, bare="<" in path)


def unknown(chance: random.Random, token: str) -> Case:
    """Identities."""
    odd = chance.choice(("", "x", token[:-1], token.upper(), token + "x", token.replace("falaj", "falaj_"), "null", "0", "\udcff\udcfe", "a" * 60_000,
                         token[:30] + "A" + token[31:], "' OR 1=1 --", "eyJhbGciOiJub25lIn0.e30.", token + ", " + token))  # fmt: skip
    return Case("token", http(dumped(good()).encode(), odd), True)


def broken(chance: random.Random, token: str) -> Case:
    """What is not quite HTTP, or not at all."""
    body = dumped(good()).encode()
    request = http(body, token)
    line = request.index(b"\r\n") + 2
    made: tuple[tuple[str, bytes, int], ...] = (
        ("length too small", http(body, token, length=str(len(body) - chance.randrange(1, 200))), 2),
        ("length no number", http(body, token, length=chance.choice(("-1", "x", "1e3", "0x10", "99999999999999999999", "1, 2", "+5", " "))), 1),
        ("two lengths", http(body, token, f"content-length: {len(body) + 5}"), 1),
        ("length and chunks", http(b"", token, "transfer-encoding: chunked", length="5") + chunks(body, (9,)), 2),
        ("odd transfer", http(body, token, f"transfer-encoding: {chance.choice(('gzip', 'chunked, gzip', 'xchunked', 'identity'))}"), 2),
        ("bad chunk", http(b"", token, "transfer-encoding: chunked").replace(b"content-length: 0\r\n", b"") + chance.choice((b"zz\r\n", b"-1\r\n", b"fffffffffffffffff\r\n", b"5\r\nabc")), 1),
        ("many headers", request[:line] + b"".join(b"x-%d: y\r\n" % i for i in range(chance.choice((90, 120, 3000)))) + request[line:], 1),
        ("long header", request[:line] + b"x-long: " + b"y" * chance.choice((9_000, 70_000, 500_000)) + b"\r\n" + request[line:], 1),
        ("odd header", request[:line] + chance.choice((b"no colon\r\n", b": x\r\n", b"x y: z\r\n", b"x:\x00\r\n", b"x: a\r\n b\r\n", b"\xff: x\r\n", b"host: b\r\n")) + request[line:], 1),
        ("long path", http(body, token, path="/" + "a" * chance.choice((9_000, 70_000))), 1),
        ("no path", http(body, token, path=chance.choice(("*", "x", "http://evil/v2", "\\v2", "/v2 /x", "/\x00", "/é", "//[", "http://localhost" + INFER))), 1),
        ("version", request.replace(b"HTTP/1.1", chance.choice((b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/9.9", b"HTCPCP/1.0", b""))), 1),
        ("upgrade", http(body, token, "connection: upgrade", f"upgrade: {chance.choice(('websocket', 'h2c'))}", "sec-websocket-key: x", "sec-websocket-version: 13"), 1),
        ("garbage", chance.choice((b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"EHLO x\r\n", b"\x00" * 500, chance.randbytes(300) + b"\r\n\r\n", b"GET /\r\n\r\n")), 1),
        ("pipelined garbage", request + chance.choice((chance.randbytes(200) + b"\r\n\r\n", b"GET\r\n\r\n", request[:90] + b"\r\n\r\n")), 2),
    )  # fmt: skip
    kind, data, replies = chance.choice(made)
    return Case(kind, data, False, bare=True, last=True, replies=replies)


def case(chance: random.Random, token: str) -> Case:
    """The next request."""
    dice = chance.random()
    if dice < 0.03:
        return Case("pipelined", http(dumped(good()).encode(), token) * 5, replies=5)
    if dice < 0.10:
        return encoded(chance, token)
    if dice < 0.18:
        return addressed(chance, token)
    if dice < 0.21:
        return unknown(chance, token)
    if dice < 0.29:
        return broken(chance, token)
    if dice < 0.30:
        kind, body = chance.choice(largest())
        refused = True
    elif dice < 0.45:
        kind, body, refused = damaged(chance)
    else:
        kind, body, refused = mutated(chance)
    return Case(kind, http(body, token), refused)
