"""What the programs of Python's clients share: a question on each line of standard input, and an answer to it on a line of its own."""

import json
import sys


def answer_all(answer, output=sys.stdout):
    """Answers with what `answer` gives, or with its failure and what the server said."""
    for line in sys.stdin:
        try:
            told = answer(json.loads(line))
        except Exception as error:
            told = {"error": str(error)}
            if getattr(error, "response", None) is not None:
                told["answer"] = error.response.json()
        print(json.dumps(told), file=output, flush=True)
