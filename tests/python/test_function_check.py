"""`deltashare check --function`: the function opens its tables itself. Lambda's API is a stand-in; the function is the real one."""

import http.client
import json
import os
import subprocess

from conftest import BINARY, TOKEN
from test_dynamodb import TABLE, put
from test_lambda import BUCKET, MANY, SHARED, ask, function, stack, start  # noqa: F401


def check(function, *arguments, name="deltashare", code=0):  # noqa: F811
    """With nothing of AWS but Lambda."""
    nowhere = "http://127.0.0.1:9"
    environment = {"PATH": os.environ["PATH"], "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "invoker", "AWS_SECRET_ACCESS_KEY": "secret",
                   "AWS_ENDPOINT_URL": nowhere, "AWS_ENDPOINT_URL_LAMBDA": f"http://127.0.0.1:{function.port}"}
    done = subprocess.run([str(BINARY), "check", "--function", name, *arguments], env=environment, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=300)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done


def test_the_function_opens_every_table_with_its_own_role(function, stack):  # noqa: F811
    done = check(function, "--output", "json", code=1)
    found = {table["table"]: table for table in map(json.loads, done.stdout.splitlines())}
    assert found.keys() >= {f"Retail.Sales.{name}" for name in [*SHARED, "many"]}
    for name in SHARED:
        assert found[f"Retail.Sales.{name}"]["readable"], found
    # Of the largest there is only the log.
    many = found["Retail.Sales.many"]
    assert many["files"] == MANY and not many["readable"] and "a file that the log names is gone" in many["reason"]
    assert "1 of" in done.stderr and "cannot be read" in done.stderr
    text = check(function, code=1).stdout
    assert "Retail.Sales.py_versions: readable, version 3, 1 files" in text


def test_what_clients_send_is_never_taken_for_a_check(function):  # noqa: F811
    event = b'{"deltashare": {"check": {}}}'
    answer = ask(function, "POST", "/shares/retail/schemas/sales/tables/py_versions/query", body=event)
    assert answer.status == 200 and b'"protocol"' in answer.body.splitlines()[0]
    assert ask(function, "GET", "/shares", body=event).json["items"]
    assert ask(function, "POST", "/", body=event).status in (404, 405)


def test_only_the_event_of_the_command_is_a_check(stack):  # noqa: F811
    """An array of the values is an object to what reads JSON here; to others it is another event."""
    secret = "dss_test-token-of-an-event"
    function = start(stack, environment={"RUST_LOG": "trace"})  # noqa: F811

    def invoke(event):
        connection = http.client.HTTPConnection("127.0.0.1", function.port, timeout=30)
        try:
            connection.request("POST", "/2015-03-31/functions/deltashare/invocations", body=json.dumps(event))
            answer = connection.getresponse()
            return answer.getheader("X-Amz-Function-Error"), answer.read().decode()
        finally:
            connection.close()

    try:
        assert invoke({"deltashare": {"check": {"after": "Zzz"}}}) == (None, '{"badRecords":[],"tables":[]}')
        for event in ([[[]]], [[{}]], [{"check": {}}], {"deltashare": [{}]}, {"deltashare": {"check": []}}, {"deltashare": {"check": None}}, [], None,
                      1, "x", {"deltashare": {"check": {}}, "httpMethod": "GET"}, {"headers": {"Authorization": secret}, "httpMethod": 7}, [secret]):
            failed, said = invoke(event)
            assert failed and "is neither a request by way of API Gateway" in said and secret not in said, (event, said)
    finally:
        function.stop()
    assert secret not in "".join(function.log)


def test_a_function_that_has_too_little_time_is_asked_again(stack):  # noqa: F811
    dynamodb = stack.client("dynamodb")
    for number in range(12):
        put(dynamodb, "SHARE#retail", f"TABLE#sales#more{number}", name=f"more{number}", schema="Sales", id=f"more-{number}",
            location=f"s3://{BUCKET}/py_versions")
    function = start(stack, seconds=2)  # noqa: F811
    try:
        done = check(function, "--output", "json", code=1)
        names = [json.loads(line)["table"] for line in done.stdout.splitlines()]
        assert len(names) == len(set(names)) and {f"Retail.Sales.more{number}" for number in range(12)} < set(names)
        assert len(function.invocations) == 0 and sum("more" in name for name in names) == 12
    finally:
        function.stop()
        for number in range(12):
            dynamodb.delete_item(TableName=TABLE, Key={"pk": {"S": "SHARE#retail"}, "sk": {"S": f"TABLE#sales#more{number}"}})


def test_records_that_the_function_cannot_read_are_named(function, stack):  # noqa: F811
    dynamodb = stack.client("dynamodb")
    put(dynamodb, "SHARE#retail", "TABLE#sales#bad", name="bad", schema="Sales", id="bad", location="s3://x/y", signerRole="none")
    try:
        done = check(function, code=1)
        assert "NOT readable: the table record SHARE#retail TABLE#sales#bad" in done.stdout and "1 records cannot be read" in done.stderr
    finally:
        dynamodb.delete_item(TableName=TABLE, Key={"pk": {"S": "SHARE#retail"}, "sk": {"S": "TABLE#sales#bad"}})


def test_what_is_not_such_a_function_is_told(function):  # noqa: F811
    assert "there is no function 'other' in this account and region" in check(function, name="other", code=1).stderr


def test_the_log_has_no_token(function):  # noqa: F811
    assert TOKEN not in "".join(function.log)
