"""What the scene world is planted with: good pictures, copies of some, and one or more of every fault of the web."""

import math
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from demo.behaviours import (
    Answer,
    AnyBehaviour,
    Busy,
    Drip,
    Endless,
    Redirect,
    Serve,
    ShortBody,
    Slow,
)
from demo.encodings import ENCODINGS, bomb
from demo.entry import Entry
from demo.scene import render, scene_size
from demo.signs import words
from demo.truth import SceneTruth
from schemas.ledger import Reason

DOMAIN = "scene-world.test"
"""Under a top-level domain that never resolves (RFC 6761)."""
FILES = "files"
"""Folder of the served files in the world's folder."""
_FORMATS = {"png": "png", "webp": "webp", "animated": "gif"}
"""Of the encodings that are not JPEG."""
_BOMB = "bomb.png"
_PAGE = "<!doctype html><title>Gallery</title><p>The picture has moved to our new gallery."


class Plan:
    """What is to be built.

    Attributes:
        pictures: scene seed to the files that show it, and the encoding of each.
        closed_hosts: hosts at which no one listens.
    """

    def __init__(self, scenes: int, seed: int) -> None:
        self.entries: list[Entry] = []
        self.routes: dict[str, AnyBehaviour] = {}
        self.pictures: dict[int, dict[str, str]] = {}
        self.closed_hosts: list[str] = []
        self.scenes = scenes
        self.rng = random.Random(f"world {seed}")
        self._next_scene = seed * 1_000_000

    def new_scene(self) -> int:
        self._next_scene += 1
        return self._next_scene

    def file(self, scene: int, encoding: str) -> str:
        """Order a picture; returns its name."""
        name = f"{scene:07d}-{encoding}.{_FORMATS.get(encoding, 'jpeg')}"
        self.pictures.setdefault(scene, {})[name] = encoding
        return name

    def picture(self, scene: int, encoding: str = "jpeg") -> Serve:
        """A well-behaved answer with a picture of a scene."""
        content_type = f"image/{_FORMATS.get(encoding, 'jpeg')}"
        return Serve(file=f"{FILES}/{self.file(scene, encoding)}", content_type=content_type)

    def add(
        self, url: str | None, behaviour: AnyBehaviour | None, expected: Reason | None, scene: int | None = None
    ) -> Entry:
        """A row of metadata with inconspicuous values, and what its URL answers."""
        width, height = (
            scene_size(scene) if scene is not None else self.rng.choice(((1024, 768), (800, 600), (640, 960)))
        )
        if behaviour is not None and url is not None:
            self.routes[url] = behaviour
        entry = Entry(
            url=url,
            text=" ".join(self.rng.sample(words(), 4)),
            width=width,
            height=height,
            punsafe=round(self.rng.uniform(0, 0.02), 4),
            pwatermark=round(self.rng.uniform(0.02, 0.3), 4),
            similarity=round(self.rng.uniform(0.28, 0.4), 4),
            aesthetic=round(self.rng.uniform(5.0, 7.2), 3),
            expected=expected,
            scene=scene,
        )
        self.entries.append(entry)
        return entry


def address(host: str, path: str) -> str:
    return f"http://{host}.{DOMAIN}/{path}"


def plant(scenes: int, seed: int) -> Plan:
    """Everything, in the order of the metadata; nothing is rendered yet."""
    plan = Plan(scenes, seed)
    good = _good(plan)
    _copies(plan, good)
    _stated(plan)
    _dead(plan)
    _wrong_content(plan)
    _opted_out(plan)
    _traps(plan)
    _not_on_the_web(plan)
    twice = plan.rng.sample(good, max(1, scenes // 30))
    plan.entries += [entry.model_copy() for entry in twice]
    plan.rng.shuffle(plan.entries)
    seen: set[str] = set()
    for entry in plan.entries:
        if entry.url is None:
            continue
        if entry.url in seen:
            entry.expected = Reason.DUPLICATE_URL
        seen.add(entry.url)
    return plan


def develop(plan: Plan, folder: Path) -> dict[int, SceneTruth]:
    """Render every scene and write every file of the plan into `folder`; returns the truth by scene seed."""

    def one(scene: int) -> SceneTruth:
        rendered = render(scene)
        for name, encoding in plan.pictures[scene].items():
            (folder / name).write_bytes(ENCODINGS[encoding](rendered.image))
        return rendered.truth

    (folder / _BOMB).write_bytes(bomb())
    # Pillow gives up the interpreter's lock while it draws and encodes.
    with ThreadPoolExecutor() as pool:
        return dict(zip(plan.pictures, pool.map(one, plan.pictures), strict=True))


def _good(plan: Plan) -> list[Entry]:
    """Distinct pictures that must come through, a few in another format or by a longer way."""
    entries = []
    for i in range(plan.scenes):
        scene = plan.new_scene()
        encoding = {1: "turned", 5: "png", 9: "webp"}.get(i % 12, "jpeg")
        served = plan.picture(scene, encoding)
        file = served.file.rpartition("/")[2]
        url = address("photos" if i % 3 == 2 else "images", file)
        behaviour: AnyBehaviour = served
        if i % 50 == 2:
            url, behaviour = address("slow", file), Slow(seconds=1.0, then=served)
        elif i % 50 == 3:
            url, behaviour = address("busy", file), Busy(then=served)
        elif i % 50 == 4:
            url, behaviour = address("moved", f"old/{file}"), Redirect(location=f"/new/{file}", status=301)
            plan.routes[address("moved", f"new/{file}")] = Redirect(location=address("images", file), status=302)
            plan.routes[address("images", file)] = served
        entry = plan.add(url, behaviour, None, scene)
        if i % 50 in (6, 7):
            entry.width, entry.height = (None, None) if i % 50 == 6 else (math.nan, entry.height)
        entries.append(entry)
    return entries


def _copies(plan: Plan, good: Sequence[Entry]) -> None:
    """Copies of good pictures at URLs of their own, for the de-duplication; a copy comes through the download."""
    each = max(1, plan.scenes // 20)
    kinds = ("reencoded", "resized", "watermarked", "cropped", "same_bytes")
    originals = plan.rng.sample(good, min(len(good), each * len(kinds)))
    for i, kind in enumerate(kinds):
        for original in originals[i :: len(kinds)]:
            scene = original.scene
            assert scene is not None and original.url is not None
            encoding = next(iter(plan.pictures[scene].values())) if kind == "same_bytes" else kind
            served = plan.picture(scene, encoding)
            entry = plan.add(address("mirror", f"{kind}/{served.file.rpartition('/')[2]}"), served, None, scene)
            entry.copy_of, entry.copied = original.url, kind


def _stated(plan: Plan) -> None:
    """What the metadata itself says against a picture; the pictures are there, so that a slip would show."""
    for i in range(5):
        scene = plan.new_scene()
        entry = plan.add(
            address("images", f"thumbs/{i}.jpg"), plan.picture(scene, "thumbnail"), Reason.STATED_SIZE, scene
        )
        entry.width, entry.height = 200, 160
    for i in range(4):
        scene = plan.new_scene()
        plan.add(address("images", f"adult/{i}.jpg"), plan.picture(scene), Reason.UNSAFE, scene).punsafe = 0.98
    for i in range(4):
        scene = plan.new_scene()
        plan.add(address("images", f"stock/{i}.jpg"), plan.picture(scene), Reason.WATERMARK, scene).pwatermark = 0.96


def _dead(plan: Plan) -> None:
    """Links that lead nowhere."""
    for status, count in ((404, 6), (410, 3), (500, 1), (403, 1)):
        for i in range(count):
            answer = Answer(status=status, text=f"<h1>{status}</h1>")
            plan.add(address("gone", f"{status}/{i}.jpg"), answer, Reason.HTTP_STATUS)
    for i in range(3):
        plan.add(address("nowhere", f"{i}.jpg"), None, Reason.DNS)
    plan.add(address("down", "0.jpg"), None, Reason.CONNECT)
    plan.closed_hosts.append(f"down.{DOMAIN}")


def _wrong_content(plan: Plan) -> None:
    """Answers of status 200 that are no whole image of the size that was stated."""
    for i in range(3):
        page = Answer(content_type="image/jpeg", text=_PAGE)
        plan.add(address("moved", f"page/{i}.jpg"), page, Reason.NOT_AN_IMAGE)
    for i in range(2):
        text = Answer(content_type="text/plain", text="image removed by its owner\n")
        plan.add(address("moved", f"text/{i}.jpg"), text, Reason.NOT_AN_IMAGE)
    plan.add(address("moved", "empty.jpg"), Answer(content_type="image/jpeg"), Reason.NOT_AN_IMAGE)
    for i in range(3):
        scene = plan.new_scene()
        plan.add(address("images", f"cut/{i}.jpg"), plan.picture(scene, "cut_short"), Reason.DECODE, scene)
    for i in range(2):
        scene = plan.new_scene()
        short = ShortBody(of=plan.picture(scene))
        plan.add(address("flaky", f"{i}.jpg"), short, Reason.TRUNCATED_BODY, scene)
    scene = plan.new_scene()
    plan.add(address("images", "moving.gif"), plan.picture(scene, "animated"), Reason.TOO_MANY_FRAMES, scene)
    for i in range(3):
        scene = plan.new_scene()
        plan.add(address("images", f"liar/{i}.jpg"), plan.picture(scene, "thumbnail"), Reason.TOO_SMALL, scene)


def _opted_out(plan: Plan) -> None:
    """Pictures whose owners say no, each in a way of its own."""
    for i, (header, value) in enumerate(
        (("X-Robots-Tag", "noai"), ("X-Robots-Tag", "noindex, noimageai"), ("TDM-Reservation", "1"))
    ):
        scene = plan.new_scene()
        served = plan.picture(scene).model_copy(update={"headers": {header: value}})
        plan.add(address("optout", f"{i}.jpg"), served, Reason.OPTED_OUT, scene)
    rules = "User-agent: *\nDisallow: /private/\n"
    plan.routes[address("crawl", "robots.txt")] = Answer(content_type="text/plain", text=rules)
    for i in range(3):
        scene = plan.new_scene()
        plan.add(address("crawl", f"private/{i}.jpg"), plan.picture(scene), Reason.REFUSED_ROBOTS, scene)
    scene = plan.new_scene()
    plan.add(address("crawl", "public/0.jpg"), plan.picture(scene), None, scene)


def _traps(plan: Plan) -> None:
    """What attacks whoever fetches it."""
    trap: dict[str, tuple[AnyBehaviour, Reason]] = {
        "bomb.png": (Serve(file=f"{FILES}/{_BOMB}", content_type="image/png"), Reason.TOO_MANY_PIXELS),
        "endless.jpg": (Endless(), Reason.TOO_MANY_BYTES),
        "drip.jpg": (Drip(), Reason.TIMEOUT),
        "loop.jpg": (Redirect(location=address("trap", "loop.jpg")), Reason.REDIRECTS),
        "inwards.jpg": (Redirect(location="http://127.0.0.1/admin.jpg"), Reason.REFUSED_ADDRESS),
        "metadata.jpg": (Redirect(location="http://169.254.169.254/latest/meta-data/"), Reason.REFUSED_ADDRESS),
        "file.jpg": (Redirect(location="file:///etc/hostname"), Reason.REFUSED_SCHEME),
    }
    for path, (behaviour, expected) in trap.items():
        plan.add(address("trap", path), behaviour, expected)


def _not_on_the_web(plan: Plan) -> None:
    """Rows whose URL is no public web address, or no URL at all."""
    for url, expected in (
        ("http://127.0.0.1/0.jpg", Reason.REFUSED_ADDRESS),
        ("http://10.0.0.8/0.jpg", Reason.REFUSED_ADDRESS),
        ("http://[::ffff:169.254.169.254]/0.jpg", Reason.REFUSED_ADDRESS),
        (f"ftp://ftp.{DOMAIN}/0.jpg", Reason.REFUSED_SCHEME),
        ("file:///etc/hostname", Reason.REFUSED_SCHEME),
        ("data:image/gif;base64,R0lGODlhAQABAAAAACw=", Reason.REFUSED_SCHEME),
        ("images/0001.jpg", Reason.BAD_URL),
        (None, Reason.NO_URL),
    ):
        plan.add(url, None, expected)
