#!/bin/sh
# Makes the roles and the database of roles.sql, with the passwords that make-secrets.sh wrote; PGHOST and PGPORT say
# where, as for psql. Run as a superuser of the server, once; in compose.yaml the Postgres image runs it by itself.
#
#     deploy/postgres/init.sh [FOLDER]
set -eu
folder=${1:-/run/secrets}
# In the image, which runs this since it is executable, roles.sql lies elsewhere.
sql=/roles.sql
[ -e "$sql" ] || sql=$(dirname "$0")/roles.sql
psql --quiet --username "${POSTGRES_USER:-postgres}" --file "$sql" \
    -v "owner_password=$(cat "$folder/owner.password")" \
    -v "service_password=$(cat "$folder/service.password")"
