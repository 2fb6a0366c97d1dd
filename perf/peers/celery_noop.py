"""The no-op task for Celery, and its client: `celery_noop.py COUNT` sends COUNT of them and waits for
all results. Imported by the worker, too. What makes Celery slower and is not needed is off."""
import json
import os
import sys
import time

from celery import Celery
from celery.result import ResultSet

URL = os.environ["SELINON_CELERY_URL"]
app = Celery("celery_noop", broker=URL, backend=URL)
app.conf.update(
    task_acks_late=False,
    task_track_started=False,
    task_send_sent_event=False,
    worker_send_task_events=False,
    worker_enable_remote_control=False,
    worker_disable_rate_limits=True,
    broker_connection_retry_on_startup=True,
    result_expires=3600,
    broker_transport_options={"visibility_timeout": 3600},
)


@app.task(name="noop")
def noop(_arguments):
    return 1


def main(count):
    arguments = ("a" * 62,)  # 64 bytes as JSON
    begin = time.monotonic()
    with app.producer_pool.acquire(block=True) as producer:
        results = ResultSet([noop.apply_async(arguments, producer=producer)
                             for _ in range(count)])
    assert sum(results.join_native(timeout=120)) == count
    print(json.dumps({"per_s": count / (time.monotonic() - begin), "count": count}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
