"""Takes a share or a token from a recipient: revoke.py NAME --share SHARE, or revoke.py NAME --token ID"""

import argparse

from catalog import TABLE, delete, dynamodb, key_of, write

parser = argparse.ArgumentParser(description="Takes a share or a token from a recipient. The change applies from the next request.")
parser.add_argument("name")
what = parser.add_mutually_exclusive_group(required=True)
what.add_argument("--share")
what.add_argument("--token", metavar="ID")
arguments = parser.parse_args()

recipient = f"RECIPIENT#{key_of(arguments.name)}"
if arguments.share:
    share = key_of(arguments.share)
    # The first of the two is the permission; the other lists it at the share.
    write(delete(recipient, f"SHARE#{share}"), delete(f"SHARE#{share}", f"GRANT#{key_of(arguments.name)}"))
    print(f"Share {arguments.share} is no longer granted to {arguments.name}.")
else:
    listed = dynamodb.get_paginator("query").paginate(
        TableName=TABLE, ConsistentRead=True, KeyConditionExpression="pk = :pk AND begins_with(sk, :tokens)",
        ExpressionAttributeValues={":pk": {"S": recipient}, ":tokens": {"S": "TOKEN#"}})
    found = [item for page in listed for item in page["Items"] if item["id"]["S"] == arguments.token]
    if not found:
        parser.error(f"{arguments.name} has no token {arguments.token}")
    for item in found:
        # The record that servers look up is named by the hash; the other one lists it.
        write(delete(f"TOKEN#{item['sha256']['S'].lower()}", "TOKEN"), delete(recipient, item["sk"]["S"]))
    print(f"Token {arguments.token} of {arguments.name} is revoked.")
