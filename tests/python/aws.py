"""An AWS of our own: MiniStack, on loopback, with signatures and policies checked."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import boto3
import botocore.config

REGION = "us-east-1"


class Aws:
    """One MiniStack, ended by its own process group."""

    def __init__(self, python=sys.executable, services="s3,sts,iam,dynamodb", log=subprocess.DEVNULL, signatures=True):
        """`signatures` says whether requests are checked as AWS does."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.region = REGION
        # Another engine may stand in for its DynamoDB.
        self.dynamodb = os.environ.get("DELTASHARE_TEST_DYNAMODB", self.endpoint)
        self.environment = {"AWS_ENDPOINT_URL": self.endpoint, "AWS_ENDPOINT_URL_DYNAMODB": self.dynamodb, "AWS_REGION": REGION,
                            "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
        environment = {
            **os.environ, "AUTH": str(signatures).lower(), "BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(self.port), "MINISTACK_HOST": "127.0.0.1",
            "SFTP_ENABLED": "0", "IOT_MTLS_ENABLED": "0", "SERVICES": services, "LOG_LEVEL": "ERROR",
            # Where the functions that it runs find AWS.
            "AWS_ENDPOINT_URL": self.endpoint,
        }
        self.process = subprocess.Popen([python, "-m", "ministack"], env=environment, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{self.endpoint}/_ministack/health", timeout=2).read()
                return
            except OSError:
                if time.monotonic() > end or self.process.poll() is not None:
                    self.stop()
                    raise
                time.sleep(0.1)

    def client(self, service, credentials=None):
        keys = credentials or {"accessKeyId": "test", "secretAccessKey": "test", "sessionToken": None}
        return boto3.client(
            service, endpoint_url=self.dynamodb if service == "dynamodb" else self.endpoint, region_name=REGION, aws_access_key_id=keys["accessKeyId"],
            aws_secret_access_key=keys["secretAccessKey"], aws_session_token=keys["sessionToken"],
            config=botocore.config.Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
        )

    def stop(self):
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
