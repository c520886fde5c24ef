"""What ``helm test`` runs: the gateway lists its models, or refuses a caller without a key."""

import json
import os
import sys
import urllib.error
import urllib.request

url = os.environ["OPENAI_BASE_URL"] + "/models"
key = os.environ.get("OPENAI_API_KEY", "")
request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"} if key else {})
try:
    with urllib.request.urlopen(request, timeout=30) as answer:
        models = [model["id"] for model in json.load(answer)["data"]]
    print(f"{url} lists {len(models)} models: {', '.join(models)}")
except urllib.error.HTTPError as refusal:
    error = json.load(refusal)["error"]
    print(f"{url} answers {refusal.code} {error['code']}: {error['message']}")
    # Without a key a refusal is the right answer; any other status is not.
    sys.exit(0 if not key and (refusal.code, error["code"]) == (401, "invalid_api_key") else 1)
else:
    sys.exit(0 if key else "the gateway answered a caller without a key")
