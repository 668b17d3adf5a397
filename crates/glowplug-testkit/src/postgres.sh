#!/bin/sh
# Runs a PostgreSQL server for tests: postgres.sh FOLDER BIN OPTIONS [USERS]
#
# The server listens on FOLDER/.s.PGSQL.5432 and is owned by nobody in particular if this runs as root,
# which PostgreSQL refuses. Each `ready` on standard output says that it takes connections.
#
# Without USERS it obeys standard input: `crash` kills the server without a checkpoint and starts it again,
# `stop` and `start` do as they say, and the end of the input ends everything.
# With USERS, the path of a file, it lasts as long as somebody holds a lock on that file.
set -eu
folder=$1 bin=$2 options=$3 users=${4-}
root=${bin%/usr/lib/postgresql/*}
if [ -n "$root" ] && [ "$root" != "$bin" ]; then
    # Unpacked packages bring libraries that the system lacks.
    for libraries in "$root"/usr/lib/*-linux-gnu; do
        export LD_LIBRARY_PATH="$libraries"
    done
fi
export LC_ALL=C TZ=UTC
unprivileged=
if [ "$(id -u)" = 0 ]; then
    unprivileged='--reuid=nobody --regid=nogroup --clear-groups'
fi
# What is started so dies with this script, however that ends.
as_nobody() { setpriv $unprivileged --pdeathsig QUIT "$@"; }

make() {
    rm -rf "$folder/data"
    mkdir -p "$folder/data"
    chmod 700 "$folder/data"
    if [ -n "$unprivileged" ]; then
        chown nobody:nogroup "$folder" "$folder/data"
    fi
    (cd "$folder" && as_nobody "$bin/initdb" --pgdata data --username glowplug --auth trust \
        --encoding UTF8 --no-locale --no-sync >"$folder/log" 2>&1) || { cat "$folder/log" >&2; exit 1; }
}

start() {
    cd "$folder"
    rm -f "$folder/data/postmaster.pid"
    # Not by way of a function, which would have a shell in between.
    setpriv $unprivileged --pdeathsig QUIT "$bin/postgres" -D "$folder/data" -c "unix_socket_directories=$folder" \
        -c listen_addresses= -c max_connections=500 -c shared_buffers=64MB \
        $options >>"$folder/log" 2>&1 </dev/null &
    server=$!
    # The server's own word. `pg_isready` is in another package, which may be installed elsewhere.
    until grep -q '^ready' "$folder/data/postmaster.pid" 2>/dev/null; do
        kill -0 "$server" 2>/dev/null || { cat "$folder/log" >&2; exit 1; }
        sleep 0.05
    done
    echo ready
}

end() {
    kill -s "$1" "$server" 2>/dev/null || true
    wait "$server" || true
}

make
start
trap 'end QUIT; exit 1' TERM INT HUP
if [ -z "$users" ]; then
    while read -r order; do
        case $order in
        crash) end QUIT; start ;;
        stop) end INT; echo ready ;;
        start) start ;;
        esac
    done
    end QUIT
    rm -rf "$folder/data"
    exit 0
fi
exec >/dev/null
exec 9>>"$users"
while true; do
    flock -x 9
    flock -u 9
    sleep 3
    # Whoever comes now waits for the end, and starts another server.
    if flock -x -n 9; then
        end INT
        rm -rf "$folder/data"
        exit 0
    fi
done
