"""HyperQueue: `hyperqueue_noop.py COUNT FOLDER PROGRAM` starts a server and a worker with all cores and
runs one job of COUNT tasks, each a process of PROGRAM. Nothing is kept of what they print.

The client looks once a second whether a job has ended, so one more task, which depends on all others,
leaves a file whose time is the end."""
import json
import os
import sys
import time

from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig


def main(count, folder, program):
    with LocalCluster(server_dir=folder, worker_config=WorkerConfig()) as cluster:
        client = cluster.client()
        job = Job(default_workdir=folder)
        tasks = [job.program([program], stdout=None, stderr=None) for _ in range(count)]
        end = os.path.join(folder, "end")
        job.program(["touch", end], stdout=None, stderr=None, deps=tasks)
        begin = time.time()
        client.wait_for_jobs([client.submit(job)]) # raises if a task has failed
        took = os.stat(end).st_mtime - begin
    print(json.dumps({"per_s": count / took, "count": count}))
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
