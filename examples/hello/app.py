"""A fal app whose setup takes a while, as loading a model does."""

import time

import fal
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

SETUP_SECONDS = 3
WORDS = ("one", "two", "three", "four", "five")


class Greeting(BaseModel):
    name: str = Field(default="world", description="Whom to greet", max_length=100)


class Answer(BaseModel):
    text: str
    greeted_before: int = Field(description="Greetings by this runner before this one")


class Hello(fal.App, keep_alive=10):
    machine_type = "XS"

    def setup(self):
        # Stands for reading a large model into memory.
        time.sleep(SETUP_SECONDS)
        self.greeted = 0

    @fal.endpoint("/")
    def greet(self, greeting: Greeting) -> Answer:
        answer = Answer(text=f"Hello, {greeting.name}!", greeted_before=self.greeted)
        self.greeted += 1
        return answer

    @fal.endpoint("/stream")
    def count(self) -> StreamingResponse:
        def events():
            for number, word in enumerate(WORDS, start=1):
                yield f'data: {{"number": {number}, "word": "{word}"}}\n\n'
                time.sleep(0.2)

        return StreamingResponse(events(), media_type="text/event-stream")

    def teardown(self):
        print(f"going away after {self.greeted} greeting(s)", flush=True)
