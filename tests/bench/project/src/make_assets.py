"""The static files of the bench."""

import os

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "assets", "static")

os.makedirs(FOLDER, exist_ok=True)
for name, size in (("1k.txt", 1024), ("64k.txt", 65536)):
    with open(os.path.join(FOLDER, name), "wb") as file:
        file.write(b"x" * size)
