#!/bin/sh
# Start the ledger's PostgreSQL server, creating its database the first time.
#
# Works with any image that has a PostgreSQL server (PATH or Debian's folders) and as any user
# but root, so that no image's own entry point, which wants to be root, is needed.
# PGDATA: folder of the data. PASSWORD_FILE: holds the password of the user "trierarch".
# SOCKET_DIR: folder of the local socket, through which no password is asked.
set -eu

programs=$(dirname "$(command -v initdb || ls -d /usr/lib/postgresql/*/bin/initdb | tail -n 1)")

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    # Made beside its place and renamed when whole: a pod killed here starts again from nothing.
    rm -rf "$PGDATA.new"
    "$programs/initdb" --pgdata="$PGDATA.new" --username=postgres --encoding=UTF8 \
        --locale=C.UTF-8 --auth-host=scram-sha-256 --auth-local=trust
    printf 'host trierarch trierarch all scram-sha-256\n' >> "$PGDATA.new/pg_hba.conf"
    # The superuser has no password, so nobody is it over the network.
    password=$(sed "s/'/''/g" "$PASSWORD_FILE")
    printf "CREATE ROLE trierarch LOGIN PASSWORD '%s';\n%s\n" "$password" \
        "CREATE DATABASE trierarch OWNER trierarch;" |
        "$programs/postgres" --single -D "$PGDATA.new" -c log_min_error_statement=panic postgres \
            > /dev/null
    rm -rf "$PGDATA"
    mv "$PGDATA.new" "$PGDATA"
fi

exec "$programs/postgres" -D "$PGDATA" -c listen_addresses="${LISTEN_ADDRESSES:-*}" \
    -c port="${PORT:-5432}" -c unix_socket_directories="$SOCKET_DIR"
