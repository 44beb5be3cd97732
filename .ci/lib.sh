# Functions of .ci/run and .ci/matrix, which set $work: steps with their seconds, system parts, the demo, the wheel.

certificates='SSL_CERT_FILE|SSL_CERT_DIR|PIP_CERT|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE'
index_settings="$certificates|PIP_[A-Z_]*INDEX[A-Z_]*|PIP_FIND_LINKS|UV_[A-Z_]*INDEX[A-Z_]*|[A-Za-z]+_(proxy|PROXY)"

steps=()
begun=0

# Begins a step, and notes how long the one before took.
step() {
    local now=$SECONDS
    [ -z "${current:-}" ] || steps+=("$((now - begun)) s  $current")
    current=$* begun=$now
    printf '\n== %s (after %s s)\n' "$*" "$now"
}

# Prints the seconds of the steps that ended.
print_steps() {
    printf '%s\n' "${steps[@]}" "$SECONDS s  all"
}

# Installs Debian packages, as root or through sudo.
apt_install() {
    local as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo -n)
    if [ ! -e "$work/apt-updated" ]; then
        "${as_root[@]}" apt-get update -qq && touch "$work/apt-updated"
    fi
    "${as_root[@]}" apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# True if a system part is there.
has_part() {
    case $1 in
        postgresql) compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null ;;
        *) PATH=$PATH:/usr/sbin command -v "$1" >/dev/null ;;
    esac
}

# Runs a command as a newcomer would: in the fresh clone, with an empty home and nothing exported but
# what reaches a package index, and random examples for the tests. Argument: the command.
as_newcomer() {
    local kept=()
    mapfile -t kept < <(env | grep -E "^(PATH|$index_settings)=")
    (cd "$work/clone" && env -i --default-signal=INT HOME="$work/home" PYTEST_ADDOPTS="$examples" "${kept[@]}" bash -euc "$1")
}

# Plays the demo to its end while what the tests need is downloaded: $downloads. Argument: its command.
play_demo() {
    # The demo stays until Ctrl-C, which its last line says. It has a group of processes, as in a terminal,
    # and heeds Ctrl-C also where this script was started in the background.
    printf '\n$ %s\n' "$1"
    set -m
    as_newcomer "$1" >"$work/demo.log" 2>&1 &
    demo=$!
    set +m
    # The demo leaves the network idle: what the second command needs besides comes into uv's cache meanwhile.
    (
        until grep -q 'A local Octogen' "$work/demo.log"; do
            kill -0 "$demo" || exit
            sleep 1
        done
        as_newcomer "UV_PROJECT_ENVIRONMENT='$work/downloaded' .uv/bin/uv sync -q --no-install-project"
    ) >"$work/downloads.log" 2>&1 &
    downloads=$!
    for _ in {1..900}; do
        ! grep -q 'Ctrl-C' "$work/demo.log" && kill -0 "$demo" 2>/dev/null || break
        sleep 1
    done
    kill -INT -- "-$demo" 2>/dev/null || true
    wait "$demo" || true
    demo=
    cat "$work/demo.log"
    if ! grep -q 'Ctrl-C' "$work/demo.log"; then
        echo "The demo did not play all of its days."
        exit 1
    fi
    parquet_files=$(find "$work/clone" -name '*.parquet' -not -path '*/.venv/*' | wc -l)
    if [ "$parquet_files" -lt 4 ]; then
        echo "The demo left $parquet_files Parquet files. It must leave those of four catalogs."
        exit 1
    fi
}

# Checks that the wheel installs into an empty environment without Google and pandas, and imports.
check_wheel() {
    uv build -q --out-dir "$work/dist" # the wheel is built from the source distribution
    uvx -q twine check --strict "$work"/dist/*
    uv venv -q --python 3.11 "$work/empty"
    uv pip install -q --python "$work/empty" "$work"/dist/*.whl
    if uv pip list -q --python "$work/empty" | grep -E '^(google-|grpc-google|pandas|pyarrow|dagster-gcp)'; then
        echo "A user of Parquet snapshots alone would install the packages above."
        exit 1
    fi
    (cd "$work" && "$work/empty/bin/python" -c "
from octogen_dagster import *
from octogen_dagster import __version__
print(__version__)")
    message=$("$work/empty/bin/octogen-dagster" sandbox 2>&1 || true)
    grep -q 'Add "octogen-dagster\[sandbox\]"' <<<"$message"
}
