# Sourced by ../quickstart and ../check: what they need from Debian, installed if it is missing.

PACKAGES_BUILD="cmake ninja-build gcc g++ pkg-config liburing-dev libyaml-dev libyajl-dev \
libmsgpack-dev liblmdb-dev libzmq3-dev libcmocka-dev libvalijson-dev rapidjson-dev \
libboost-context-dev procps"
PACKAGES_CHECK="clang libclang-rt-14-dev clang-tidy clang-format python3 ccache \
python3-zmq python3-msgpack"

# For the producer in Node, which fetches its libraries from npm. Not if another node is there.
command -v npm >/dev/null || PACKAGES_CHECK="$PACKAGES_CHECK nodejs npm"

say() {
    printf '\n== %s\n' "$*"
}

is_installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "This needs root or sudo: $*" >&2
        return 1
    fi
}

# install_packages NAME...
install_packages() {
    if ! command -v dpkg-query >/dev/null; then
        echo "   no Debian here: hoping that these are installed: $*"
        return 0
    fi
    missing=
    for package in "$@"; do
        is_installed "$package" || missing="$missing $package"
    done
    if [ -z "$missing" ]; then
        echo "   all there"
        return 0
    fi
    echo "   installing$missing"
    # Not by `env` in front of sudo, which drops the environment.
    as_root apt-get update -q &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y \
            --no-install-recommends $missing # a list of names, to be split
}

jobs_count() {
    nproc 2>/dev/null || echo 2
}
