"""Draws sample.png, the picture that the demo sends.

    uv run --no-project --with pillow make_sample.py
"""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

LINES = ("Cold start: 42 seconds", "Warm start: 3 milliseconds", "Glowplug example 2026")


def main():
    picture = Image.new("L", (640, 200), 250)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=44)
    for at, line in enumerate(LINES):
        draw.text((24, 20 + at * 54), line, fill=20, font=font)
    picture.save(Path(__file__).with_name("sample.png"), optimize=True)


if __name__ == "__main__":
    main()
