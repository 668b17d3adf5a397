"""An app whose runners are restored from a snapshot."""

import os
import random
import tempfile
import time
import uuid

import fal


class Model(fal.App, keep_alive=600, max_concurrency=30):
    requirements = ["numpy==2.2.6"]

    def setup(self):
        import numpy

        time.sleep(1)
        self.weights = numpy.random.random(1000)
        self.token_at_setup = os.environ.get("TOKEN")
        self.told = []

    def before_snapshot(self):
        self.told.append("before")

    async def after_restore(self):
        self.told.append("after with " + os.environ.get("TOKEN", "nothing"))

    @fal.endpoint("/")
    def state(self) -> dict:
        import numpy

        return {
            "weights": float(self.weights.sum()),
            "token_at_setup": self.token_at_setup,
            "token": os.environ.get("TOKEN"),
            "told": self.told,
            "job": os.environ["FAL_JOB_ID"],
            "fresh": [
                str(uuid.uuid4()),
                os.urandom(8).hex(),
                repr(random.random()),
                repr(float(numpy.random.random())),
                next(tempfile._get_candidate_names()),
            ],
        }


class NeedsItsToken(fal.App, keep_alive=600):
    requirements = ["numpy==2.2.6"]

    def setup(self):
        if not os.environ.get("TOKEN"):
            raise RuntimeError("there is no token")

    @fal.endpoint("/")
    def work(self) -> dict:
        return {}
