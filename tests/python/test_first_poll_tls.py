"""How long the function takes from its start to its first event, with TLS to DynamoDB and STS as on AWS."""

import asyncio
import json
import pathlib
import shutil
import ssl
import subprocess
import threading

import pytest

from aws import Aws
from lambda_runtime import BINARY, Lambda
from test_dynamodb import TABLE, make_table
from test_lambda import ROLE

STARTS = 20


class TlsFront:
    """Ends TLS on loopback, and passes what it carries to another port of this machine."""

    def __init__(self, certificate, key, port):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.behind, self.connections, self.failures = port, 0, []
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda _, context: self.failures.append(context["message"]))
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.server = self._do(asyncio.start_server(self._carry, "127.0.0.1", 0, ssl=context))
        self.port = self.server.sockets[0].getsockname()[1]

    def _do(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    async def _carry(self, client, answer):
        """Begins when both sides have finished the handshake."""
        self.connections += 1
        server, request = await asyncio.open_connection("127.0.0.1", self.behind)
        await asyncio.gather(self._pass(client, request), self._pass(server, answer), return_exceptions=True)

    async def _pass(self, source, target):
        try:
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
        finally:
            target.close()

    async def _end(self):
        self.server.close()

    def stop(self):
        self._do(self._end())
        self.loop.call_soon_threadsafe(self.loop.stop)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A certificate for this machine, its key, and the roots of a machine that trusts it besides the usual ones."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    home = tmp_path_factory.mktemp("tls")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=home, check=True, capture_output=True)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "root.key", "-out", "root.pem", "-days", "2", "-subj", "/CN=root",
            "-addext", "basicConstraints=critical,CA:true", "-addext", "keyUsage=critical,keyCertSign")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
    (home / "names").write_text("subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth\n")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial", "-out", "server.pem",
            "-days", "2", "-extfile", "names")
    # Lambda's machine trusts some 140 authorities, which each client reads when it is created.
    usual = ssl.get_default_verify_paths().cafile
    roots = home / "roots.pem"
    roots.write_text((pathlib.Path(usual).read_text() if usual else "") + (home / "root.pem").read_text())
    return home / "server.pem", home / "server.key", roots


@pytest.fixture(scope="module")
def stack():
    aws = Aws(services="sts,iam,dynamodb")
    make_table(aws.client("dynamodb"))
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]}
    aws.client("iam").create_role(RoleName=ROLE.rpartition("/")[2], AssumeRolePolicyDocument=json.dumps(trust))
    yield aws
    aws.stop()


def processor_time(process):
    """Seconds that the threads of a process have had a processor, whatever else the machine does."""
    threads = pathlib.Path(f"/proc/{process.pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def starts(stack, environment, number=STARTS):
    """For each start, the seconds to the first poll and the processor time until then."""
    times = []
    for _ in range(number):
        function = Lambda({**stack.environment, "DELTASHARE_TABLE": TABLE, "DELTASHARE_SIGNER_ROLE_ARN": ROLE, **environment})
        try:
            times.append((function.started_after(), processor_time(function.process)))
        finally:
            function.stop()
    return times


def medians(times):
    return [sorted(values)[len(values) // 2] * 1000 for values in zip(*times)]


def test_the_first_event_is_asked_for_with_tls_to_dynamodb_and_sts_open(stack, authority):
    certificate, key, roots = authority
    dynamodb, sts = TlsFront(certificate, key, stack.port), TlsFront(certificate, key, stack.port)
    try:
        with_tls = starts(stack, {"AWS_ENDPOINT_URL_DYNAMODB": f"https://localhost:{dynamodb.port}",
                                  "AWS_ENDPOINT_URL_STS": f"https://localhost:{sts.port}", "SSL_CERT_FILE": str(roots)})
    finally:
        dynamodb.stop()
        sts.stop()
    assert dynamodb.connections >= STARTS, "DynamoDB is not connected to before the first event"
    # The function waits for STS for two seconds at most, which a busy machine may need.
    assert sts.connections > 0
    without = starts(stack, {})
    (tls, tls_processor), (plain, plain_processor) = medians(with_tls), medians(without)
    print(f"start to first poll: median {tls:.1f} ms with TLS to DynamoDB and STS, {plain:.1f} ms without; "
          f"processor time {tls_processor:.1f} ms and {plain_processor:.1f} ms; "
          f"{roots.read_text().count('BEGIN CERTIFICATE')} roots; binary: {BINARY.stat().st_size / 1e6:.1f} MB")


def test_a_server_that_nobody_vouches_for_is_not_talked_to(stack, authority):
    certificate, key, _ = authority
    dynamodb = TlsFront(certificate, key, stack.port)
    function = Lambda({**stack.environment, "DELTASHARE_TABLE": TABLE, "DELTASHARE_SIGNER_ROLE_ARN": ROLE,
                       "AWS_ENDPOINT_URL_DYNAMODB": f"https://localhost:{dynamodb.port}"})
    try:
        assert function.process.wait(30) != 0
    finally:
        function.stop()
        dynamodb.stop()
    assert function.polled.empty() and dynamodb.connections == 0
