"""An app that shows every part of what a runner promises."""

import os

import fal
from fal.exceptions import RequestCancelledException
from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel


class Input(BaseModel):
    number: int


class Contract(fal.App, keep_alive=7, max_concurrency=3, name="a-contract"):
    machine_type = ["GPU-H100", "S"]
    num_gpus = 2
    max_multiplexing = 4
    startup_timeout = 90
    request_timeout = 20
    termination_grace_period_seconds = 9
    secrets = ["TOKEN"]

    def setup(self):
        print("setup in", os.environ["FAL_RUNNER_STATE"], flush=True)

    @fal.endpoint("/")
    def double(self, given: Input, response: Response) -> Input:
        response.headers["x-fal-billable-units"] = "3"
        return Input(number=given.number * 2)

    @fal.endpoint("/who")
    def who(self, request: Request) -> dict:
        return {
            "client": request.client.host,
            "request_id": self.current_request.request_id,
            "state": os.environ["FAL_RUNNER_STATE"],
            "fal": has_fal(),
        }

    @fal.endpoint("/broken")
    def broken(self) -> dict:
        raise RuntimeError("out of order")

    @fal.endpoint("/cancelled")
    def cancelled(self) -> dict:
        raise RequestCancelledException("no longer wanted")

    @fal.endpoint("/stream")
    def stream(self) -> StreamingResponse:
        return StreamingResponse(iter(["data: 1\n\n", "data: 2\n\n"]), media_type="text/event-stream")

    @fal.realtime("/realtime")
    def realtime(self, given: Input) -> Input:
        return given

    @fal.endpoint("/alive", health_check=fal.HealthCheck(timeout_seconds=2, failure_threshold=4))
    def alive(self) -> dict:
        return {}

    def handle_exit(self):
        print("handle_exit", flush=True)

    def teardown(self):
        print("teardown in", os.environ["FAL_RUNNER_STATE"], flush=True)


def has_fal() -> bool:
    import importlib.util

    return importlib.util.find_spec("fal") is not None


class FailingSetup(fal.App):
    def setup(self):
        raise ValueError("no weights here")

    @fal.endpoint("/")
    def nothing(self) -> dict:
        return {}


class NeedsNeighbour(fal.App):
    @fal.endpoint("/")
    def nothing(self) -> dict:
        return {}


@fal.function(serve=True)
def twice(number: int) -> int:
    return number * 2


@fal.function()
def not_served(number: int) -> int:
    return number


@fal.function(kind="conda", packages=["pyjokes"])
def in_conda() -> str:
    return ""
