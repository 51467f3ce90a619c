#!/bin/sh
# Makes the passwords of a new installation, and the settings files that carry them, in the folder `secrets` beside this
# file or in the one that is named. HOST is the database's, as the services reach it.
#
#     deploy/make-secrets.sh HOST [FOLDER]
set -eu
host=${1:?usage: make-secrets.sh HOST [FOLDER]}
folder=${2:-$(dirname "$0")/secrets}
if [ -e "$folder" ]; then
    echo "$folder is there already: passwords in use are not replaced" >&2
    exit 1
fi
mkdir -m 0700 "$folder"
for name in superuser owner service; do
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n' > "$folder/$name.password"
done
printf 'database_owner_url = "postgresql://pacs_cbir_owner:%s@%s/pacs_cbir"\n' \
    "$(cat "$folder/owner.password")" "$host" > "$folder/owner.toml"
printf 'database_url = "postgresql://pacs_cbir:%s@%s/pacs_cbir"\n' \
    "$(cat "$folder/service.password")" "$host" > "$folder/service.toml"
# Containers read them as users of their own; the folder keeps everybody else out.
chmod 0644 "$folder"/*
