"""Adds a recipient with a token, and writes its profile: add_recipient.py NAME --share SHARE --endpoint URL --profile FILE"""

import argparse
import datetime
import hashlib
import json
import os
import secrets

from catalog import get, key_of, put, write

parser = argparse.ArgumentParser(description="Adds a recipient with a token, and writes its profile.")
parser.add_argument("name")
parser.add_argument("--share", action="append", default=[], help="a share that the recipient can read; you can specify it several times")
parser.add_argument("--days", type=int, default=90, help="how long the token works")
parser.add_argument("--token-id", default=secrets.token_hex(4), help="names the token in lists and logs")
parser.add_argument("--endpoint", required=True, help="the URL of the server, with its prefix")
parser.add_argument("--profile", required=True, help="the file to write, which must not exist")
arguments = parser.parse_args()

recipient = f"RECIPIENT#{key_of(arguments.name)}"
now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
expires = now + datetime.timedelta(days=arguments.days)
token = f"dss_{secrets.token_urlsafe(32)}"
sha256 = hashlib.sha256(token.encode()).hexdigest()
# Both records of a token have these. DynamoDB deletes them 90 days after the token's end.
attributes = {
    "recipient": arguments.name, "id": arguments.token_id, "expires": expires.isoformat(), "created": now.isoformat(),
    "deleteAfter": int((expires + datetime.timedelta(days=90)).timestamp()),
}

records = [
    put(recipient, "RECIPIENT", name=arguments.name, status="active"),
    put(f"TOKEN#{sha256}", "TOKEN", **attributes),
    put(recipient, f"TOKEN#{key_of(arguments.token_id)}", sha256=sha256, **attributes),
]
for share in arguments.share:
    record = get(f"SHARE#{key_of(share)}", "SHARE")
    if record is None:
        parser.error(f"there is no share {share}")
    grant = {"share": record["name"]["S"], "recipient": arguments.name}
    records.append(put(recipient, f"SHARE#{key_of(share)}", **grant))
    records.append(put(f"SHARE#{key_of(share)}", f"GRANT#{key_of(arguments.name)}", **grant))

# The token is not stored elsewhere, so the script writes the file first. Only its owner can read it.
with os.fdopen(os.open(arguments.profile, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
    json.dump({"shareCredentialsVersion": 1, "endpoint": arguments.endpoint, "bearerToken": token,
               "expirationTime": expires.isoformat()}, file, indent=2)
try:
    write(*records)
except Exception:
    os.remove(arguments.profile)
    raise
print(f"Recipient {arguments.name} is added. Send it {arguments.profile} as you would send a password; the token "
      f"{arguments.token_id} in it is valid until {expires.isoformat()}.")
