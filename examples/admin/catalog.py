"""What the scripts share: the DynamoDB table, and how to write its records."""

import os
import string

import boto3
from boto3.dynamodb.types import TypeSerializer

TABLE = os.environ.get("DELTASHARE_TABLE", "deltashare")
dynamodb = boto3.client("dynamodb")
serialize = TypeSerializer().serialize


def key_of(name):
    """A name as a key contains it: in lowercase, with every other byte as % and two uppercase hexadecimal digits."""
    plain = (string.ascii_lowercase + string.digits + "_.-").encode()
    return "".join(chr(byte) if byte in plain else f"%{byte:02X}" for byte in name.lower().encode())


def keys(pk, sk):
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def put(pk, sk, **attributes):
    """A record that must not exist yet."""
    item = {name: serialize(value) for name, value in {"format": 1, **attributes}.items() if value is not None}
    return {"Put": {"TableName": TABLE, "Item": {**keys(pk, sk), **item}, "ConditionExpression": "attribute_not_exists(pk)"}}


def delete(pk, sk):
    return {"Delete": {"TableName": TABLE, "Key": keys(pk, sk)}}


def get(pk, sk):
    return dynamodb.get_item(TableName=TABLE, Key=keys(pk, sk), ConsistentRead=True).get("Item")


def write(*items):
    """Writes all of it or nothing."""
    dynamodb.transact_write_items(TransactItems=list(items))
