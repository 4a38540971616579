"""Shares a table: share_table.py SHARE.SCHEMA.TABLE s3://BUCKET/PREFIX [--history]"""

import argparse
import uuid

from catalog import TABLE, key_of, keys, put, write

parser = argparse.ArgumentParser(description="Shares a table, and creates its share and schema if they do not exist.")
parser.add_argument("name", metavar="SHARE.SCHEMA.TABLE")
parser.add_argument("location", metavar="s3://BUCKET/PREFIX")
parser.add_argument("--history", action="store_true", help="let recipients read older versions and changes")
arguments = parser.parse_args()

# The name of a share can contain periods.
share, schema, table = arguments.name.rsplit(".", 2)
if not arguments.location.startswith("s3://"):
    parser.error("a table in a DynamoDB catalog must be in s3://")


def keep_or_create(sk, **attributes):
    """Creates a record of the share. An existing record keeps its attributes, above all its ID."""
    values = {"format": {"N": "1"}, **{name: {"S": value} for name, value in attributes.items()}}
    return {"Update": {
        "TableName": TABLE, "Key": keys(f"SHARE#{key_of(share)}", sk),
        "UpdateExpression": "SET " + ", ".join(f"#{name} = if_not_exists(#{name}, :{name})" for name in values),
        # Servers do not serve a share that is being deleted.
        "ConditionExpression": "attribute_not_exists(deleting)",
        "ExpressionAttributeNames": {f"#{name}": name for name in values},
        "ExpressionAttributeValues": {f":{name}": value for name, value in values.items()},
    }}


write(
    keep_or_create("SHARE", name=share, id=str(uuid.uuid4())),
    keep_or_create(f"SCHEMA#{key_of(schema)}", name=schema),
    put(f"SHARE#{key_of(share)}", f"TABLE#{key_of(schema)}#{key_of(table)}", name=table, schema=schema, id=str(uuid.uuid4()),
        location=arguments.location, historyShared=arguments.history),
)
print(f"Table {arguments.name} is now shared with every recipient of share {share}.")
