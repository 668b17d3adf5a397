"""No-op jobs through Celery or RQ: prints how many a second got done, as JSON.

`python jobs.py celery|rq|rq-simple|versions`, with the address of Redis in JOBS_REDIS.
"""

import json
import os
import subprocess
import sys
import time
from importlib.metadata import version

import celery
import redis
import rq

URL = os.environ["JOBS_REDIS"]
JOBS = {"celery": 5_000, "rq-simple": 1_500, "rq": 100}
DEADLINE_SECONDS = 120

app = celery.Celery("jobs", broker=URL, backend=URL)
app.conf.broker_connection_retry_on_startup = True


@app.task
def noop():
    return None


def do_nothing():
    return None


def run_celery(jobs):
    """Celery's own pool, one process for each core, without its chatter."""
    worker = [sys.executable, "-m", "celery", "-A", "jobs", "worker", "-l", "ERROR"]
    worker += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    process = subprocess.Popen(worker, stdout=subprocess.DEVNULL)
    try:
        noop.delay().get(timeout=DEADLINE_SECONDS)
        began = time.perf_counter()
        results = celery.result.ResultSet([noop.delay() for _ in range(jobs)])
        results.join_native(timeout=DEADLINE_SECONDS)
        return jobs / (time.perf_counter() - began)
    finally:
        process.terminate()
        process.wait()


def run_rq(jobs, worker_class):
    """RQ has no pool: one worker for each core."""
    connection = redis.Redis.from_url(URL)
    queue = rq.Queue(connection=connection)
    queue.empty()
    worker = [sys.executable, "-m", "rq.cli", "worker", "--url", URL, "--quiet"]
    worker += ["--worker-class", worker_class]
    processes = [
        subprocess.Popen(worker, stdout=subprocess.DEVNULL) for _ in range(os.cpu_count())
    ]
    try:
        first = queue.enqueue("jobs.do_nothing")
        wait(lambda: first.is_finished, "the first job")
        before = queue.finished_job_registry.count
        began = time.perf_counter()
        for _ in range(jobs):
            queue.enqueue("jobs.do_nothing")
        wait(lambda: queue.finished_job_registry.count >= before + jobs, "all jobs")
        return jobs / (time.perf_counter() - began)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def wait(is_done, what):
    deadline = time.perf_counter() + DEADLINE_SECONDS
    while not is_done():
        if time.perf_counter() > deadline:
            sys.exit(f"{what} took longer than {DEADLINE_SECONDS} s")
        time.sleep(0.01)


def main():
    system = sys.argv[1]
    if system == "versions":
        for name in ["celery", "rq", "redis"]:
            print(name, version(name))
        return
    if system == "celery":
        rate = run_celery(JOBS[system])
    else:
        kinds = {"rq": "rq.worker.Worker", "rq-simple": "rq.worker.SimpleWorker"}
        rate = run_rq(JOBS[system], kinds[system])
    print(json.dumps({"jobs_per_second": rate}))


if __name__ == "__main__":
    main()
