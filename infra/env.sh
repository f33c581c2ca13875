#!/bin/sh
# Writes .env beside docker-compose.yml: random secrets, readable by you alone. It never overwrites one.
set -eu
cd "$(dirname "$0")/.."
file=${1:-.env}
if [ -e "$file" ]; then
  echo "error: $file is there already, and engines that ran with it know no other secrets" >&2
  echo "hint: keep it; to begin anew, remove it and the volumes ('docker compose down --volumes')" >&2
  exit 1
fi
secret() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
umask 077
# Written whole or not at all.
cat > "$file.$$" <<END
POSTGRES_PASSWORD=$(secret)
VALKEY_PASSWORD=$(secret)
S3_ACCESS_KEY_ID=$(secret)
S3_SECRET_ACCESS_KEY=$(secret)
END
mv "$file.$$" "$file"
echo "wrote $file" >&2
