"""Commands that are killed at random, 200 times: what they change happened or did not, and the catalog stays whole."""

import collections
import json
import os
import random
import signal
import subprocess
import threading
import time

import pytest

from conftest import BINARY, Server, hash_of
from faults import RESET, Way, aws  # noqa: F401
from test_admin import BUCKET, UUID, Admin, bucket, check_invariants, client_make, items, retail, token_of  # noqa: F401

TABLE = "killed"
KILLS = 25
ORDERS = f"s3://{BUCKET}/orders"
# What is another one each time that a command runs, or was looked at already.
RANDOM = {"pk", "sk", "id", "sha256", "expires", "deleteAfter", "created", "createdAt", "expiresAt", "replacedAt"}

# Commands of one transaction: all of it is there or nothing.
AT_ONCE = {
    "table update": ("table", "update", "retail.sales.orders", "--no-history"),
    "grant": ("grant", "other", "--share", "retail"),
    "revoke": ("revoke", "acme", "--share", "retail"),
    "recipient create": ("recipient", "create", "globex", "--share", "retail"),
    "token rotate": ("token", "rotate", "acme", "--grace", "1h"),
}
# Commands of many: what they delete is out of service with the first, and the same command finishes the rest.
IN_STEPS = {
    "recipient delete": ("recipient", "delete", "acme", "--yes"),
    "share delete": ("share", "delete", "retail", "--yes"),
    "apply": ("apply", "-f", "{file}"),
}


class World:
    """A catalog that can be put back, its commands, and a server over it."""

    def __init__(self, aws, folder):
        self.client = aws.client("dynamodb")
        client_make(self.client, TABLE)
        self.server = Server("--catalog", f"dynamodb:{TABLE}", env=aws.environment)
        self.admin = Admin(aws, TABLE, self.server.endpoint)
        self.token = token_of(retail(self.admin, folder))
        self.admin.run("recipient", "create", "other")
        # More than the items of one transaction.
        self.write({"PutRequest": {"Item": {name: {"S": value} for name, value in {
            "pk": "SHARE#retail", "sk": f"SCHEMA#empty{number:03}", "name": f"empty{number:03}"}.items()} | {"format": {"N": "1"}}}}
            for number in range(130))
        self.file = folder / "shares.yaml"
        self.file.write_text(json.dumps({
            "version": 1,
            "shares": [{"name": "Stock", "schemas": [
                {"name": f"s{number}", "tables": [{"name": "orders", "location": ORDERS}]} for number in range(2)]}],
            "recipients": [{"name": "globex", "shares": ["Stock"], "tokens": [{"sha256": hash_of("dss_globex"), "expires": "never"}]}],
        }))
        self.way = Way(int(aws.dynamodb.rpartition(":")[2]))
        self.environment = {**self.admin.environment, "AWS_ENDPOINT_URL_DYNAMODB": self.way.endpoint}
        self.before = self.items()

    def write(self, requests):
        requests = list(requests)
        for first in range(0, len(requests), 25):
            assert not self.client.batch_write_item(RequestItems={TABLE: requests[first:first + 25]})["UnprocessedItems"]

    def items(self):
        return items(self.client, TABLE)

    def put_back(self):
        there = self.items()
        self.write([*({"DeleteRequest": {"Key": {"pk": {"S": pk}, "sk": {"S": sk}}}} for pk, sk in there.keys() - self.before.keys()),
                    *({"PutRequest": {"Item": item}} for key, item in self.before.items() if there.get(key) != item)])

    def start(self, command):
        words = [str(BINARY), *(word.replace("{file}", str(self.file)) for word in command)]
        return subprocess.Popen(words, env=self.environment, stdin=subprocess.DEVNULL,
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def view(self):
        """What the recipient sees."""
        asked = "/shares", "/shares/retail/all-tables", "/shares/retail/schemas/sales/tables/orders/version"
        answers = [self.server.request("GET", path, token=self.token) for path in asked]
        return [(answered.status, answered.body if answered.status == 200 else None) for answered in answers]


@pytest.fixture(scope="module")
def world(aws, bucket, tmp_path_factory):  # noqa: F811
    world = World(aws, tmp_path_factory.mktemp("killed"))
    yield world
    world.way.stop()
    assert world.server.stop() == 0


def shape(there, before):
    """The records without what is random in them."""
    found = []
    for (pk, sk), item in there.items():
        if (pk, sk) not in before:
            pk, sk = (part if part == "TOKEN" or not part.startswith("TOKEN#") else "TOKEN#new" for part in (pk, sk))
        found.append((pk, sk, repr(sorted((name, None if name in RANDOM else value) for name, value in item.items()))))
    return sorted(found)


class Kill:
    """A rule that kills whoever makes the request of this number: in place of passing it on, or so many seconds later."""

    def __init__(self, number, seconds):
        self.number, self.seconds, self.seen, self.lock = number, seconds, 0, threading.Lock()
        self.process, self.started = None, threading.Event()

    def __call__(self, _):
        with self.lock:
            self.seen += 1
            now = self.seen == self.number
        if now and self.seconds is None:
            self.kill()
            return RESET
        if now:
            threading.Timer(self.seconds, self.kill).start()
        return None

    def kill(self):
        self.started.wait(10)
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)


def whole_run(world, command):
    """(what the records are after it, what the recipient sees then, how many requests it takes)"""
    world.put_back()
    world.way.rule = count = Kill(0, 0)
    assert world.start(command).wait(60) == 0
    return shape(world.items(), world.before), world.view(), count.seen


def killed(world, command, chance, requests):
    """The records after it began and was killed: at any of its requests, before it was passed on, or after its answer."""
    world.put_back()
    world.way.rule = rule = Kill(chance.randint(1, requests), chance.choice([None, chance.uniform(0, 0.03)]))
    rule.process = process = world.start(command)
    rule.started.set()
    code = process.wait(60)
    world.way.rule = None
    # A request that was on its way is carried out after all.
    there, last = world.items(), None
    while there != last:
        time.sleep(0.02)
        there, last = world.items(), there
    check_invariants(there)
    return code, there


@pytest.mark.parametrize("kind", AT_ONCE)
def test_a_command_that_is_killed_happened_or_did_not(world, kind):
    after, _, requests = whole_run(world, AT_ONCE[kind])
    before = shape(world.before, world.before)
    assert after != before
    chance, found = random.Random(kind), collections.Counter()
    for _ in range(KILLS):
        code, there = killed(world, AT_ONCE[kind], chance, requests)
        state = shape(there, world.before)
        assert state in (before, after), set(state) ^ set(before)
        assert code == 0 or code == -signal.SIGKILL
        assert code != 0 or state == after, "it said that it was done"
        found[code, "after" if state == after else "before"] += 1
    print(kind, dict(found))
    assert found[-signal.SIGKILL, "before"] > 0
    world.admin.run("check")


@pytest.mark.parametrize("kind", IN_STEPS)
def test_a_command_of_many_steps_that_is_killed_is_finished_by_the_same_command(world, kind):
    after, seen_after, requests = whole_run(world, IN_STEPS[kind])
    world.put_back()
    before, seen_before = shape(world.before, world.before), world.view()
    assert after != before and (seen_after != seen_before or kind == "apply")
    chance, found = random.Random(kind), collections.Counter()
    for number in range(KILLS):
        code, there = killed(world, IN_STEPS[kind], chance, requests)
        state = shape(there, world.before)
        # Whatever is left in the records, a recipient sees all of it or nothing.
        assert world.view() in (seen_before, seen_after)
        found["before" if state == before else "after" if state == after else "between"] += 1
        if number % 8 == 0:
            world.admin.run("check")
        again = world.start(IN_STEPS[kind]).wait(60)
        assert again == 0 or again == 3 and state == after, (again, kind)
        assert shape(world.items(), world.before) == after
        check_invariants(world.items())
    print(kind, dict(found))
    assert found["between"], "it was never killed between two steps"
