"""The witness as a process on the wire: TLS 1.3 or nothing, and no body that it need not read."""

from __future__ import annotations

import datetime
import ipaddress
import json
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from falaj.governance.audit.witness import MAX_REQUEST, create
from falaj.governance.audit.witnessing import post_over_http

FALAJ = [sys.executable, "-m", "falaj.entrypoints.cli.app"]


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "witness")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a witness behind TLS, and the certificate to trust."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = certificate(folder)
    create(folder / "w", "w.example")
    command = [*FALAJ, "witness", "serve", str(folder / "w"), "--certificate", str(cert), "--key", str(key), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["url"], cert
        finally:
            process.terminate()


def test_it_answers_over_tls(served: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    url, cert = served
    assert url.startswith("https://")
    with pytest.raises(ssl.SSLCertVerificationError):
        post_over_http(f"{url}/add-checkpoint", b"x")
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    assert post_over_http(f"{url}/add-checkpoint", b"x").status == 400
    assert post_over_http(f"{url}/anything", b"x").status == 404
    assert post_over_http(f"{url}/add-checkpoint", b"x" * (MAX_REQUEST + 1)).status == 413


def test_older_tls_and_plain_text_are_refused(served: tuple[str, Path]) -> None:
    url, cert = served
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    old = ssl.create_default_context(cafile=str(cert))
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection((parts.hostname, parts.port), 5) as plain,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        old.wrap_socket(plain, server_hostname=parts.hostname)
    with socket.create_connection((parts.hostname, parts.port), 5) as plain:
        plain.sendall(b"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert not plain.recv(100).startswith(b"HTTP")
