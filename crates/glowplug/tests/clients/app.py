"""The app that the clients are tried on: every kind of answer that a fal app can give."""

import asyncio
import json

import fal
from fal.exceptions import RequestCancelledException
from fastapi import HTTPException, Request, Response, WebSocket
from fastapi.responses import StreamingResponse
from pydantic import BaseModel


class Greeting(BaseModel):
    name: str
    times: int = 1


class Work(BaseModel):
    steps: int = 3
    seconds: float = 0.2


class Failure(BaseModel):
    status: int
    detail: str = "as asked for"


class Flaw(BaseModel):
    """Fails the first `times` calls. The calls are counted in a file, which outlives the runner."""

    calls: str
    times: int
    status: int


class Number(BaseModel):
    number: int


class Clients(fal.App, keep_alive=60, max_concurrency=1, name="clients"):
    def setup(self):
        self.cancelled = {}
        print("setup is done", flush=True)

    @fal.endpoint("/")
    def greet(self, given: Greeting, response: Response) -> dict:
        response.headers["x-fal-billable-units"] = str(given.times)
        return {"greeting": ", ".join(["hello " + given.name] * given.times)}

    @fal.endpoint("/echo")
    async def echo(self, request: Request) -> dict:
        """What came, as it came."""
        return {
            "method": request.method,
            "query": request.url.query,
            "headers": dict(request.headers),
            "body": json.loads(await request.body() or b"null"),
            "request_id": self.current_request.request_id,
        }

    @fal.endpoint("/mirror")
    async def mirror(self, request: Request) -> Response:
        """The body itself, whatever it is."""
        media_type = request.headers.get("content-type", "application/octet-stream")
        return Response(await request.body(), media_type=media_type)

    @fal.endpoint("/bytes")
    def bytes(self, given: Number) -> Response:
        body = b"".join(n.to_bytes(4, "big") for n in range(given.number // 4))
        return Response(body, media_type="application/octet-stream")

    @fal.endpoint("/slow")
    async def slow(self, given: Work) -> dict:
        for step in range(1, given.steps + 1):
            print("step %d of %d" % (step, given.steps), flush=True)
            await asyncio.sleep(given.seconds)
        return {"steps": given.steps}

    @fal.endpoint("/fail")
    def fail(self, given: Failure) -> dict:
        print("about to fail with %d" % given.status, flush=True)
        raise HTTPException(given.status, given.detail)

    @fal.endpoint("/flaky")
    def flaky(self, given: Flaw) -> dict:
        with open(given.calls, "a+") as file:
            file.write(self.current_request.request_id + "\n")
            file.seek(0)
            calls = len(file.readlines())
        if calls <= given.times:
            raise HTTPException(given.status, "call %d fails" % calls)
        return {"calls": calls}

    @fal.endpoint("/raise")
    def broken(self, given: Number) -> dict:
        raise RuntimeError("out of order: %d" % given.number)

    @fal.endpoint("/stream")
    async def stream(self, given: Work) -> StreamingResponse:
        async def events():
            for step in range(1, given.steps + 1):
                yield "data: %s\n\n" % json.dumps({"step": step, "of": given.steps, "text": "läuft"})
                await asyncio.sleep(given.seconds)

        return StreamingResponse(events(), media_type="text/event-stream")

    @fal.endpoint("/patient")
    async def patient(self, given: Work) -> dict:
        """Works for long, and stops when it is cancelled."""
        given_up = self.cancelled.setdefault(self.current_request.request_id, asyncio.Event())
        print("patient work begins", flush=True)
        try:
            await asyncio.wait_for(given_up.wait(), given.seconds)
        except asyncio.TimeoutError:
            return {"finished": True}
        print("patient work was cancelled", flush=True)
        raise RequestCancelledException("nobody waits for it any more")

    @fal.endpoint("/patient/cancel")
    async def cancel(self, request: Request) -> dict:
        found = self.cancelled.get(request.headers["x-fal-request-id"])
        if found is None:
            raise HTTPException(404, "no such request")
        found.set()
        return {"cancelled": True}

    @fal.realtime("/realtime")
    def double(self, given: Number) -> Number:
        return Number(number=given.number * 2)

    @fal.endpoint("/socket", is_websocket=True)
    async def socket(self, websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text.upper())
