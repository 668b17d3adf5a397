"""Reads the text in a picture. The models ship in the wheel of rapidocr-onnxruntime."""

import fal
from fal.exceptions import FieldException
from pydantic import BaseModel, Field

IMAGE_BYTES_MAX = 20 * 1024 * 1024
DOWNLOAD_SECONDS_MAX = 30


class Picture(BaseModel):
    image: str = Field(
        description="A data: URI, an http(s) URL, or the image file in base64",
        examples=["data:image/png;base64,iVBORw0KGgo="],
    )


class Line(BaseModel):
    text: str
    confidence: float = Field(description="From 0 to 1")
    box: list[list[float]] = Field(description="Corners [x, y] in pixels, clockwise from the top left")


class Reading(BaseModel):
    text: str = Field(description="All lines, from top to bottom")
    lines: list[Line]
    width: int
    height: int


# The wheel of rapidocr-onnxruntime supports no Python after 3.12.
class Ocr(fal.App, keep_alive=30, python_version="3.11"):
    # Later versions of onnxruntime report home from a thread of their own, with a database open that no snapshot can
    # have. rapidocr asks for opencv-python, which needs libGL from the system. The second step puts the same
    # version without a user interface over it, so that a bare Debian will do.
    requirements = [
        ["rapidocr-onnxruntime==1.4.4", "onnxruntime==1.22.1", "opencv-python==4.12.0.88"],
        ["opencv-python-headless==4.12.0.88"],
    ]

    def setup(self):
        from rapidocr_onnxruntime import RapidOCR

        self.engine = RapidOCR()

    @fal.endpoint("/")
    def read(self, picture: Picture) -> Reading:
        pixels = decode(fetch(picture.image))
        found, _ = self.engine(pixels)
        lines = [
            Line(text=text, confidence=float(confidence), box=[[float(x), float(y)] for x, y in box])
            for box, text, confidence in found or []
        ]
        height, width = pixels.shape[:2]
        return Reading(text="\n".join(line.text for line in lines), lines=lines, width=width, height=height)


def fetch(image: str) -> bytes:
    """The bytes of the image file, however it was given."""
    import base64
    import binascii

    import httpx

    if image.startswith(("http://", "https://")):
        try:
            answer = httpx.get(image, timeout=DOWNLOAD_SECONDS_MAX, follow_redirects=True)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise FieldException("image", f"cannot be downloaded: {error}") from error
        data = answer.content
    else:
        _, _, encoded = image.rpartition("base64,")
        try:
            data = base64.b64decode(encoded, validate=True)
        except binascii.Error as error:
            raise FieldException("image", "is neither a URL nor base64") from error
    if len(data) > IMAGE_BYTES_MAX:
        raise FieldException("image", f"is larger than {IMAGE_BYTES_MAX} bytes")
    return data


def decode(data: bytes):
    """The image as pixels, blue first, as OpenCV has them."""
    import cv2
    import numpy

    pixels = cv2.imdecode(numpy.frombuffer(data, numpy.uint8), cv2.IMREAD_COLOR) if data else None
    if pixels is None:
        raise FieldException("image", "is not in an image format that OpenCV knows")
    return pixels
