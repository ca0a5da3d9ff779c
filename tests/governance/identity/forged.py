"""Hostile tokens: Falaj's own, and ID tokens that the provider's very key signs and that are wrong all the same.

Shared by the tests of this folder and by proofs/tokens.py.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.jwk import RSAKey

from falaj.governance.identity.verify import make_token

Signer = Callable[[bytes], bytes]


def segment(value: Any) -> str:
    """base64url without padding, of JSON or of bytes as they are."""
    raw = value if isinstance(value, bytes) else msgspec.json.encode(value)
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def summed(body: str) -> str:
    """A Falaj token with the right checksum over any body."""
    return f"{body}_{zlib.crc32(body.encode(errors='surrogatepass')):08x}"


class Forge:
    """Makes ID tokens as a provider does, and as it never would."""

    def __init__(self, issuer: str, client: str, secret: str, key: RSAKey) -> None:
        self.issuer, self.client, self.secret, self.key = issuer, client, secret, key
        self.other = RSAKey.generate_key(2048, {"kid": str(key.kid)}, private=True)

    def claims(self, nonce: str, /, **more: Any) -> dict[str, Any]:
        """What a good token says; `None` takes a claim away."""
        now = int(time.time())
        good = {
            "iss": self.issuer, "aud": self.client, "sub": "alice", "iat": now, "exp": now + 300, "nonce": nonce,
            "groups": ["engineers"], "name": "Alice", **more,
        }  # fmt: skip
        return {k: v for k, v in good.items() if v is not None}

    def header(self, **more: Any) -> dict[str, Any]:
        """A good header; `None` takes a parameter away."""
        good = {"alg": "RS256", "kid": self.key.kid, "typ": "JWT", **more}
        return {k: v for k, v in good.items() if v is not None}

    def rs256(self, data: bytes, key: RSAKey | None = None) -> bytes:
        """The provider's signature, or another key's."""
        return (key or self.key).private_key.sign(data, padding.PKCS1v15(), hashes.SHA256())  # type: ignore[union-attr]

    def token(self, header: Any, claims: Any, sign: Signer | None = None) -> str:
        """Any header and any claims (JSON or bytes), signed by the provider's key unless something else signs."""
        told = f"{segment(header)}.{segment(claims)}"
        return f"{told}.{segment((sign or self.rs256)(told.encode()))}"

    def good(self, nonce: str, /, **more: Any) -> str:
        """A token that is to be accepted; with `more` claims perhaps not."""
        return self.token(self.header(), self.claims(nonce, **more))


def id_tokens(forge: Forge, nonce: str) -> Iterator[tuple[str, str]]:
    """Hostile ID tokens for the sign-in of this nonce, each with its name."""
    yield from _unsigned(forge, nonce)
    yield from _symmetric(forge, nonce)
    yield from _headers(forge, nonce)
    yield from _broken(forge, nonce)
    yield from _parties(forge, nonce)
    yield from _times(forge, nonce)
    yield from _nonces(forge, nonce)
    yield from _subjects(forge, nonce)
    yield from _twice(forge, nonce)
    yield from _payloads(forge, nonce)


def _unsigned(f: Forge, nonce: str) -> Iterator[tuple[str, str]]:
    for name in ("none", "None", "NONE", "nOnE", ""):
        told = f"{segment(f.header(alg=name))}.{segment(f.claims(nonce))}"
        yield f"alg {name!r}, no signature", f"{told}."
        yield f"alg {name!r}, the right signature", f"{told}.{segment(f.rs256(told.encode()))}"
    yield "no alg", f.token(f.header(alg=None), f.claims(nonce))
    yield "no signature", f.good(nonce).rpartition(".")[0] + "."


def _symmetric(f: Forge, nonce: str) -> Iterator[tuple[str, str]]:
    public = f.key.public_key
    secrets = {
        "the key's PEM": public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "the key's DER": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "the key's PKCS 1": public.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
        "the key's JWK": json.dumps(f.key.as_dict(private=False)).encode(),
        "the client's secret": f.secret.encode(),
        "nothing": b"",
    }
    for what, secret in secrets.items():
        for bits in (256, 384, 512):

            def sign(data: bytes, secret: bytes = secret, bits: int = bits) -> bytes:
                return hmac.new(secret, data, getattr(hashlib, f"sha{bits}")).digest()

            yield f"HS{bits} with {what}", f.token(f.header(alg=f"HS{bits}"), f.claims(nonce), sign)
    traversal = f.header(alg="HS256", kid="../../../../dev/null")
    yield (
        "HS256, a kid that leads to an empty file",
        f.token(traversal, f.claims(nonce), lambda d: hmac.digest(b"", d, "sha256")),
    )


def _headers(f: Forge, nonce: str) -> Iterator[tuple[str, str]]:
    mine = f.other.as_dict(private=False)

    def by_other(data: bytes) -> bytes:
        return f.rs256(data, f.other)

    leads: dict[str, Any] = {
        "jwk": mine,
        "jku": "http://127.0.0.1:9/keys.json",
        "x5u": "http://127.0.0.1:9/chain.pem",
        "x5c": ["MIIB"],
    }
    for name, value in leads.items():
        yield (
            f"{name}, signed by the key that it leads to",
            f.token(f.header(**{name: value}), f.claims(nonce), by_other),
        )
        yield f"{name}, no kid", f.token(f.header(kid=None, **{name: value}), f.claims(nonce), by_other)
        yield f"{name}, signed by the right key", f.token(f.header(**{name: value}), f.claims(nonce))
    kids = (
        "../../../../etc/passwd",
        "/dev/null",
        "' or 1=1 --",
        "http://127.0.0.1:9/k",
        "unknown",
        "",
        1,
        None,
        ["first"],
        "\0",
    )
    for kid in kids:
        yield f"kid {kid!r}", f.token(f.header(kid=kid), f.claims(nonce))
    crits: tuple[Any, ...] = (["exp"], ["b64"], ["falaj"], [], "exp", None)
    for crit in crits:
        extra: dict[str, Any] = {"crit": crit, "b64": True} if crit == ["b64"] else {"crit": crit}
        head = {**f.header(), **extra}
        yield f"crit {crit!r}", f.token(head, f.claims(nonce))
    more: dict[str, Any] = {"b64": False, "zip": "DEF", "enc": "A128GCM", "cty": "JWT", "p2c": 1}
    for name, value in more.items():
        yield f"{name} in the header", f.token(f.header(**{name: value}), f.claims(nonce))
    for typ in ("at+jwt", "logout+jwt", "JOSE", 1):
        yield f"typ {typ!r}", f.token(f.header(typ=typ), f.claims(nonce))
    algorithms: tuple[Any, ...] = ("RS384", "RS512", "PS256", "ES256", "EdDSA", "rs256", "RS256 ", ["RS256"], 256, {})
    for alg in algorithms:
        yield f"alg {alg!r} over an RS256 signature", f.token(f.header(alg=alg), f.claims(nonce))
    told = f"{segment(f.header(alg='PS256'))}.{segment(f.claims(nonce))}"
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256().digest_size)
    signed = f.key.private_key.sign(told.encode(), pss, hashes.SHA256())  # type: ignore[union-attr]
    yield "PS256 with a key that is for RS256", f"{told}.{segment(signed)}"


def _broken(f: Forge, nonce: str) -> Iterator[tuple[str, str]]:
    good = f.good(nonce)
    head, body, signature = good.split(".")
    admin = segment(f.claims(nonce, groups=["admins"]))
    raw = base64.urlsafe_b64decode(signature + "==")
    yield "another key's signature under this kid", f.token(f.header(), f.claims(nonce), lambda d: f.rs256(d, f.other))
    yield "other claims under this signature", f"{head}.{admin}.{signature}"
    yield "a flipped signature", f"{head}.{body}.{segment(bytes([raw[0] ^ 1]) + raw[1:])}"
    yield "a short signature", f"{head}.{body}.{segment(raw[:-1])}"
    yield "a long signature", f"{head}.{body}.{segment(raw + b'x')}"
    yield "a signature of zeros", f"{head}.{body}.{segment(bytes(len(raw)))}"
    yield "a padded signature", f"{good}=="
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    yield "a signature with other last bits", good[:-1] + last[last.index(good[-1]) ^ 1]
    yield "a signature in the plain alphabet", f"{head}.{body}.{base64.b64encode(raw).decode().rstrip('=')}!"
    yield "a newline at the end", good + "\n"
    yield "a space in it", f"{head}. {body}.{signature}"
    yield "two parts", f"{head}.{body}"
    yield "four parts", f"{good}.{signature}"
    yield "five parts", f"{good}.{body}.{signature}"
    yield "dots alone", ".."
    yield "nothing", ""
    yield "JSON serialisation", json.dumps({"protected": head, "payload": body, "signature": signature})
    yield "a token in a token", f.token(f.header(), segment({}).encode())
    yield "very long", f.token(f.header(), f.claims(nonce, more="x" * 20_000))


def _parties(f: Forge, nonce: str) -> Iterator[tuple[str, str]]:
    own = f.issuer
    for iss in (None, "", own + "/", own.upper(), own[:-1], "https://evil.example", [own], {"iss": own}, 1):
        yield f"iss {iss!r}", f.good(nonce, iss=iss)
    audiences: tuple[Any, ...] = (
        None,
        "",
        "another-client",
        f.client + " ",
        f.client.upper(),
        f.client[:-1],
        [],
        {},
        1,
        {f.client: 1},
    )
    for aud in audiences:
        yield f"aud {aud!r}", f.good(nonce, aud=aud)
    for many in ([f.client, "another-client"], ["another-client"], [f.client, 1], [[f.client]], [f.client, f.client]):
        yield f"aud {many!r}", f.good(nonce, aud=many)
    yield "aud of two, azp ours", f.good(nonce, aud=[f.client, "another-client"], azp=f.client)
    for azp in ("another-client", "", 1, [f.client]):
        yield f"azp {azp!r}", f.good(nonce, azp=azp)


def _times(f: Forge, nonce: str) -> Iterator[tuple[str, str]]:
    now = int(time.time())
    for n, exp in enumerate((None, now - 3600, 0, -1, str(now + 300), True, [now + 300], 1e300, 10**30)):
        yield f"exp {n}, {type(exp).__name__}", f.good(nonce, exp=exp)
    for n, iat in enumerate((None, now + 3600, now - 86_400, 0, -1, str(now), False, [now])):
        yield f"iat {n}, {type(iat).__name__}", f.good(nonce, iat=iat)
    for n, nbf in enumerate((now + 3600, "now", -1, True, {})):
        yield f"nbf {n}, {type(nbf).__name__}", f.good(nonce, nbf=nbf)
    for bad in (b"NaN", b"Infinity", b"-Infinity", b"1e999"):
        text = json.dumps(f.claims(nonce)).encode().replace(b'"exp": ', b'"exp": ' + bad + b', "was": ')
        yield f"exp {bad.decode()}", f.token(f.header(), text)


def _nonces(f: Forge, nonce: str) -> Iterator[tuple[str, str]]:
    wrong = (
        None,
        "",
        "another",
        nonce[:-1],
        nonce + "x",
        nonce.swapcase(),
        [nonce],
        {"nonce": nonce},
        1,
        True,
        "\u0660",
    )
    for n, other in enumerate(wrong):
        yield f"nonce {n}, {type(other).__name__}", f.good(other)  # type: ignore[arg-type]  # that is the point


def _subjects(f: Forge, nonce: str) -> Iterator[tuple[str, str]]:
    for sub in (None, "", 1, ["alice"], {"sub": "alice"}, "a" * 256, "ali\u0441e", "a\nb", "\0"):
        yield f"sub {str(sub)[:12]!r}", f.good(nonce, sub=sub)


def _twice(f: Forge, nonce: str) -> Iterator[tuple[str, str]]:
    claims = json.dumps(f.claims(nonce))
    for name, bad in {
        "aud": '"x"',
        "sub": '"admin"',
        "iss": '"x"',
        "exp": "1",
        "nonce": '"x"',
        "groups": '["admins"]',
    }.items():
        yield f"{name} twice, the good one last", f.token(f.header(), f'{{"{name}": {bad}, {claims[1:]}'.encode())
        yield f"{name} twice, the good one first", f.token(f.header(), f'{claims[:-1]}, "{name}": {bad}}}'.encode())
    deep = claims[:-1] + ', "address": {"a": 1, "a": 2}}'
    yield "something twice, further down", f.token(f.header(), deep.encode())
    for name, bad in {"alg": '"none"', "kid": '"x"', "typ": '"x"'}.items():
        head = json.dumps(f.header())
        yield f"{name} twice in the header", f.token(f'{{"{name}": {bad}, {head[1:]}'.encode(), f.claims(nonce))


def _payloads(f: Forge, nonce: str) -> Iterator[tuple[str, str]]:
    bodies = {
        "a list": b"[]", "null": b"null", "text": b'"alice"', "nothing": b" ", "not UTF-8": b'{"sub": "\xff"}',
        "broken off": b'{"sub": "alice"', "a mark in front": b"\xef\xbb\xbf" + json.dumps(f.claims(nonce)).encode(),
        "nested deeply": b"[" * 5000, "two objects": json.dumps(f.claims(nonce)).encode() * 2,
    }  # fmt: skip
    for what, body in bodies.items():
        yield f"claims: {what}", f.token(f.header(), body)
        if what not in ("a mark in front", "two objects"):
            yield f"header: {what}", f.token(body, f.claims(nonce))


def falaj_tokens(token: str, other: str, others: dict[str, str], stored: str) -> Iterator[tuple[str, str]]:
    """Hostile tokens of our own format, from two good ones, `others` that are not good any more, and a stored hash."""
    body, checksum = token.rsplit("_", 1)
    _, identifier, secret = body.split("_", 2)
    yield from others.items()
    yield "nothing", ""
    yield "a space", " "
    yield "a word", "admin"
    yield "null", "null"
    yield "the id alone", identifier
    yield "the secret alone", secret
    yield "no checksum", body
    yield "a wrong checksum", f"{body}_00000000"
    yield "an upper checksum", f"{body}_{checksum.upper()}x"
    yield "a short checksum", token[:-1]
    yield "a long checksum", token + "0"
    yield "a newline at the end", token + "\n"
    yield "a zero at the end", token + "\0"
    yield "a space in front", " " + token
    yield "two tokens", token + token
    yield "two tokens in a list", f"{token},{other}"
    yield "another prefix", token.replace("falaj_", "Falaj_", 1)
    yield "no prefix", token.removeprefix("falaj_")
    yield "an unknown token", make_token()[1]
    yield "another id with this secret", summed(f"falaj_{other.split('_', 2)[1]}_{secret}")
    yield "an unknown id with this secret", summed(f"falaj_{'0' * 16}_{secret}")
    yield "a flipped secret", summed(body[:-1] + ("A" if body[-1] != "A" else "B"))
    yield "a secret in another case", summed(f"falaj_{identifier}_{secret.swapcase()}")
    yield "a longer secret", summed(body + "A")
    yield "a shorter secret", summed(body[:-1])
    yield "an empty secret", summed(f"falaj_{identifier}_")
    yield "an empty id", summed(f"falaj__{secret}")
    yield "a shorter id", summed(f"falaj_{identifier[1:]}_{secret}")
    yield "an id in capitals", summed(f"falaj_{identifier.upper()}_{secret}")
    yield "a path as id", summed(f"falaj_../../../../etc/p_{secret}")
    yield "sql as id", summed(f"falaj_' or '1'='1' --_{secret}")
    yield "a padded secret", summed(body[:-1] + "=")
    yield "the stored hash", stored
    yield "the stored hash as secret", summed(f"falaj_{identifier}_{stored[:43]}")
    yield "wide letters", token.replace("falaj", "ｆalaj")
    yield "arabic digits", f"{body}_{'١' * 8}"
    yield "a direction mark", token[:10] + "\u200f" + token[10:]
    yield "a lone surrogate", token[:-1] + "\ud800"
    yield "percent signs", token.replace("_", "%5f")
    yield "very long", "falaj_" + "a" * 1_000_000
    yield "many underscores", "_" * 10_000
    for algorithm in ("none", "None", "nOnE", "HS256", "RS256"):
        head, claims = segment({"alg": algorithm, "typ": "JWT"}), segment({"sub": "ann", "roles": ["platform-admin"]})
        yield f"a JWT, {algorithm}", f"{head}.{claims}."
        yield f"a signed JWT, {algorithm}", f"{head}.{claims}.{secret}"
    yield "a JWT with its own key", f"{segment({'alg': 'HS256', 'jwk': {'kty': 'oct', 'k': secret}})}.{segment({})}.x"
    yield "a JWT with a key's address", f"{segment({'alg': 'RS256', 'jku': 'http://127.0.0.1/'})}.{segment({})}.x"
    yield "a JWT with a key's path", f"{segment({'alg': 'HS256', 'kid': '../../dev/null'})}.{segment({})}.x"
    yield "basic credentials", base64.b64encode(b"owner:owner").decode()
