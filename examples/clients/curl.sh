#!/bin/sh
# A job with nothing but curl: submit it, follow its events, read its result, fetch its output.
# Its app: .venv/bin/stoker up --detach --app examples.echo.app:Echo
#   STOKER_API_URL=http://127.0.0.1:8000 STOKER_API_KEY=sk_...:... sh examples/clients/curl.sh
set -eu
: "${STOKER_API_URL:?the address of the API, as 'stoker up --json' prints it}"
: "${STOKER_API_KEY:?a key: <id>:<secret>}"

call() { curl --silent --show-error --fail-with-body --header "Authorization: Key $STOKER_API_KEY" "$@"; }
field() { sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p" | head -n 1; }

body='{"app": "examples/echo", "input": {"text": "hello from curl", "times": 3}}'

# The Idempotency-Key makes a repeated POST harmless: it answers with the job that the first one made.
accepted=$(call --header 'Content-Type: application/json' --header "Idempotency-Key: curl-$$-$(date +%s)" \
  --data "$body" "$STOKER_API_URL/v1/jobs") || { printf '%s\n' "$accepted" >&2; exit 1; }
job=$(printf '%s' "$accepted" | sed 's/.*"links"//' | field self)
echo "job: $job" >&2

# Server-Sent Events: each has an id, a kind and JSON. The stream ends after the final state.
call --no-buffer "$job/events" >&2

finished=$(call "$job") || { printf '%s\n' "$finished" >&2; exit 1; }
printf '%s\n' "$finished"

# A link in a result needs no key; it redirects to the object store. It holds a token that cannot be guessed.
output=$(printf '%s' "$finished" | sed 's/.*"outputs"//' | field url)
curl --silent --show-error --fail --location "$output"
echo
