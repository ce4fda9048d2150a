"""Certificates that are fine and such that are not, made by the program ``openssl``."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

ISSUER, ORGANIZATION = "Inspection CA", "Example Networks"

_SETTINGS = """
[ca]
default_ca = here
[here]
database = index.txt
rand_serial = yes
new_certs_dir = .
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
[req]
distinguished_name = empty
x509_extensions = authority
[empty]
[authority]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[right]
subjectAltName = IP:127.0.0.1
authorityKeyIdentifier = keyid
[wrong]
subjectAltName = DNS:other.example
authorityKeyIdentifier = keyid
"""
# Of each server: who issued its certificate, whom it names, and its last year.
_SERVERS = {
    "good": ("trusted", "right", 2099),
    "wrong_name": ("trusted", "wrong", 2099),
    "expired": ("trusted", "right", 2021),
    "unknown_issuer": ("stranger", "right", 2099),
}


@dataclass(frozen=True)
class Certificates:
    """Certificates in the files of one folder."""

    folder: Path

    @property
    def trusted(self) -> Path:
        """The certificate of the authority that clients are told to trust."""
        return self.folder / "trusted.pem"

    def server(self, kind: str) -> ssl.SSLContext:
        """For a server whose certificate is ``good``, or what is wrong with it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / f"{kind}.pem", self.folder / "key.pem")
        return context


def make(folder: Path) -> Certificates:
    """All of them, in ``folder``; takes a tenth of a second."""
    (folder / "settings").write_text(_SETTINGS)
    (folder / "index.txt").touch()
    _openssl(folder, "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem")
    for authority in ("trusted", "stranger"):
        _openssl(
            folder,
            f"req -x509 -config settings -new -key key.pem -days 30 -out {authority}.pem -subj",
            f"/O={ORGANIZATION}/CN={ISSUER} {authority}",
        )
    _openssl(folder, "req -config settings -new -key key.pem -out request -subj /CN=a-server")
    for server, (authority, names, last_year) in _SERVERS.items():
        _openssl(
            folder,
            "ca -batch -notext -config settings -in request -keyfile key.pem "
            f"-cert {authority}.pem -extensions {names} -out {server}.pem "
            f"-startdate 20200101000000Z -enddate {last_year}0101000000Z",
        )
    return Certificates(folder)


def _openssl(folder: Path, command: str, *more: str) -> None:
    done = subprocess.run(
        ["openssl", *command.split(), *more], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
