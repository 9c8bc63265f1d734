"""A web server on loopback whose every path is a few lines of a test's own."""

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Route = Callable[[BaseHTTPRequestHandler], None]


class HostileServer(ThreadingHTTPServer):
    """Answers `routes[path]`, 404 elsewhere.

    Attributes:
        routes: by path.
        seen: (path, headers) of every request, in order of arrival.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.routes: dict[str, Route] = {}
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.lock = threading.Lock()

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def paths(self) -> list[str]:
        return [path for path, _ in self.seen]

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that leave are what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: HostileServer

    def do_GET(self) -> None:
        server = self.server
        with server.lock:
            server.seen.append((self.path, dict(self.headers)))
        server.routes.get(self.path, answer(b"gone", status=404))(self)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve(tls: ssl.SSLContext | None = None) -> Iterator[HostileServer]:
    server = HostileServer(tls)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer(body: bytes, status: int = 200, **headers: str) -> Route:
    """A plain answer; underscores in header names are hyphens, and any header may be overridden."""
    given = {"Content-Type": "image/jpeg", "Content-Length": str(len(body))}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}

    def route(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in given.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return route


def redirect(location: str, status: int = 302) -> Route:
    return answer(b"", status, Location=location)


def raw(*pieces: bytes, pause: float = 0.0, times: int = 1) -> Route:
    """Bytes as they are, `times` over, with a pause after each piece."""
    waiting = threading.Event()

    def route(handler: BaseHTTPRequestHandler) -> None:
        for _ in range(times):
            for piece in pieces:
                handler.wfile.write(piece)
                handler.wfile.flush()
                if pause:
                    waiting.wait(pause)

    return route


def certificate(folder: Path, name: str) -> ssl.SSLContext:
    """A server context with a fresh self-signed certificate for `name`; `folder/cert.pem` is what trusts it."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert_file, key_file)
    return context
